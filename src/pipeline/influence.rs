//! Stage 1: which layers change their input least (section 3.1 of the paper).

use std::f64::consts::PI;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Context, Error};
use crate::{
    eval::Windows,
    job::{Progress, Stage, spec::LayerMetric},
    model::{Batch, Decoder, cosine_similarities},
};

/// Tokens that go through the model at once.
const TOKENS_AT_ONCE: usize = 2048;

/// What the calibration text says of every layer, and which layers follow from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "block influence is the term of the field")]
pub(super) struct Influence {
    /// 1 − mean cosine similarity of input and output, by layer.
    pub(super) block_influence: Vec<f64>,
    /// Mean angular distance over `count` layers from each layer on, where that metric was asked for.
    pub(super) angular_distance: Option<Vec<f64>>,
    /// The redundant layers, ascending.
    pub(super) redundant: Vec<usize>,
}

/// Which layers are to be found.
pub(super) enum Wanted<'a> {
    /// The so many most redundant by a metric.
    Count(usize, LayerMetric),
    /// These, whatever the metric says.
    Explicit(&'a [usize]),
}

/// Measures every layer on the calibration windows and chooses.
pub(super) fn measure(
    decoder: &Decoder,
    windows: &Windows,
    wanted: &Wanted<'_>,
    context: &Context<'_>,
) -> Result<Influence, Error> {
    let layers = decoder.blocks.len();
    let span = match wanted {
        Wanted::Count(count, LayerMetric::Angular) => Some(*count),
        Wanted::Count(..) | Wanted::Explicit(_) => None,
    };
    let mut cosines = vec![0.0; layers];
    let mut angles = span.map(|span| vec![0.0; layers + 1 - span]);
    let (mut tokens, total) = (0, windows.windows.len());
    let at_once = (TOKENS_AT_ONCE / windows.length).max(1);
    let mut done = 0;
    for group in windows.windows.chunks(at_once) {
        let group: Vec<&[u32]> = group.iter().map(Vec::as_slice).collect();
        let batch = Batch { windows: group.len(), length: windows.length };
        let mut hidden = decoder.embed(&group)?;
        let mut ends = vec![last_tokens(&hidden, batch)?];
        for (layer, cosines) in cosines.iter_mut().enumerate() {
            let after = decoder.forward(hidden.clone(), layer..layer + 1, batch)?;
            *cosines += cosine_similarities(&hidden, &after)?.iter().sum::<f64>();
            hidden = after;
            ends.push(last_tokens(&hidden, batch)?);
            context.progress(Progress {
                layer: Some(layer),
                ..Progress::new(Stage::Influence, done as u64, total as u64)
            })?;
        }
        if let (Some(angles), Some(span)) = (&mut angles, span) {
            add_angles(angles, span, &ends)?;
        }
        tokens += batch.tokens();
        done += group.len();
        context.progress(Progress::new(Stage::Influence, done as u64, total as u64))?;
    }
    let block_influence: Vec<f64> = cosines.iter().map(|sum| 1.0 - sum / tokens as f64).collect();
    if let Some(layer) = block_influence.iter().position(|influence| !influence.is_finite()) {
        return Err(Error::numerical(format!(
            "the block influence of layer {layer} is not finite: the model's hidden states overflow or vanish there"
        )));
    }
    let angular_distance = angles.map(|sums| sums.iter().map(|sum| sum / done as f64).collect::<Vec<_>>());
    let redundant = choose(&block_influence, angular_distance.as_deref(), wanted);
    Ok(Influence { block_influence, angular_distance, redundant })
}

/// The hidden state of each window's last token, [windows, hidden].
fn last_tokens(hidden: &Tensor, batch: Batch) -> Result<Tensor, Error> {
    let rows: Vec<u32> = (1..=batch.windows).map(|window| (window * batch.length - 1) as u32).collect();
    let count = rows.len();
    Ok(hidden.index_select(&Tensor::from_vec(rows, count, hidden.device())?, 0)?)
}

/// Adds arccos(cos) / π of the last token over `span` layers from every layer on (Gromov et al., equation 7).
fn add_angles(angles: &mut [f64], span: usize, ends: &[Tensor]) -> Result<(), Error> {
    for (first, angle) in angles.iter_mut().enumerate() {
        let cosines = cosine_similarities(&ends[first], &ends[first + span])?;
        *angle += cosines.iter().map(|cos| cos.clamp(-1.0, 1.0).acos() / PI).sum::<f64>();
    }
    Ok(())
}

fn choose(block_influence: &[f64], angular_distance: Option<&[f64]>, wanted: &Wanted<'_>) -> Vec<usize> {
    match (wanted, angular_distance) {
        (Wanted::Explicit(layers), _) => layers.to_vec(),
        (Wanted::Count(count, _), Some(distances)) => {
            let first = ascending(distances).first().copied().unwrap_or(0);
            (first..first + count).collect()
        }
        (Wanted::Count(count, _), None) => {
            let mut chosen = ascending(block_influence);
            chosen.truncate(*count);
            chosen.sort_unstable();
            chosen
        }
    }
}

/// Indices by value, smallest first; the lower index wins a tie.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_influences_are_redundant_in_model_order() {
        let influence = [0.9, 0.3, 0.1, 0.2, 0.5];
        let wanted = Wanted::Count(3, LayerMetric::BlockInfluence);
        assert_eq!(choose(&influence, None, &wanted), [1, 2, 3]);
        assert_eq!(choose(&influence, None, &Wanted::Explicit(&[0, 4])), [0, 4]);
    }

    #[test]
    fn the_angular_choice_is_one_run() {
        let wanted = Wanted::Count(2, LayerMetric::Angular);
        assert_eq!(choose(&[0.0; 4], Some(&[0.4, 0.1, 0.2]), &wanted), [1, 2]);
    }
}
