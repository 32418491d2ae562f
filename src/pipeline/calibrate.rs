//! The calibration windows: of one text, or of several in the shares that the job gives them.

use super::{Context, Error};
use crate::{
    checkpoint,
    eval::{self, Tokens, Windows},
    job::{
        Progress, Stage,
        spec::{Calibration, CalibrationPart},
    },
};

/// Reads, tokenises and cuts the job's calibration texts; `notes` gets what differs from what was asked.
pub(super) fn read(
    calibration: &Calibration,
    folder: &std::path::Path,
    vocab_size: usize,
    context: &Context<'_>,
    notes: &mut Vec<String>,
) -> Result<Windows, Error> {
    let total = calibration.samples as u64;
    context.progress(Progress::new(Stage::Calibrate, 0, total))?;
    let mut texts = Vec::new();
    for part in &calibration.parts {
        let settings = context.settings;
        let text = eval::load_text(&part.dataset, &part.split, &settings.datasets_dir, &settings.hub)?;
        let tokens = Tokens::encode(folder, &text, vocab_size)?;
        if tokens.len() < 2 {
            let CalibrationPart { dataset, split, .. } = part;
            let found =
                format!("{dataset} ({split}) has {} tokens: at least two are needed to calibrate", tokens.len());
            return Err(checkpoint::Error::InvalidDataset(found).into());
        }
        texts.push(tokens);
    }
    let windows = cut(calibration, &texts);
    let shortfall = windows.windows.len() < calibration.samples || windows.length < calibration.sequence_length;
    if shortfall {
        let tokens: Vec<String> = texts.iter().map(|tokens| tokens.len().to_string()).collect();
        notes.push(format!(
            "calibrated on {} windows of {} tokens: the text has only {} tokens",
            windows.windows.len(),
            windows.length,
            tokens.join(" and ")
        ));
    }
    context.progress(Progress::new(Stage::Calibrate, total, total))?;
    Ok(windows)
}

/// Each text's share of the windows; all have the length that the shortest text allows.
fn cut(calibration: &Calibration, texts: &[Tokens]) -> Windows {
    let shortest = texts.iter().map(Tokens::len).min().unwrap_or(0);
    let length = calibration.sequence_length.min(shortest);
    let shares: Vec<f64> = calibration.parts.iter().map(|part| part.weight).collect();
    let mut windows = Vec::with_capacity(calibration.samples);
    for ((tokens, count), offset) in texts.iter().zip(apportion(calibration.samples, &shares)).zip(0..) {
        let seed = calibration.seed.wrapping_add(offset);
        windows.extend(tokens.cut(count, length, calibration.selection, seed).windows);
    }
    Windows { windows, length }
}

/// `total` in whole numbers as close to the shares as they get, by largest remainder; the earlier wins a tie.
fn apportion(total: usize, shares: &[f64]) -> Vec<usize> {
    let all: f64 = shares.iter().sum();
    let exact: Vec<f64> = shares.iter().map(|share| total as f64 * share / all).collect();
    let mut counts: Vec<usize> = exact.iter().map(|exact| *exact as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = total.saturating_sub(counts.iter().sum());
    for &index in order.iter().take(left) {
        counts[index] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_shared_out_by_weight_and_none_is_lost() {
        assert_eq!(apportion(8, &[1.0]), [8]);
        assert_eq!(apportion(8, &[0.5, 0.5]), [4, 4]);
        assert_eq!(apportion(7, &[0.5, 0.5]), [4, 3]);
        assert_eq!(apportion(10, &[2.0, 1.0, 1.0]), [5, 3, 2]);
        assert_eq!(apportion(128, &[0.7, 0.3]), [90, 38]);
    }
}
