//! Progress on standard error: a bar per stage on a terminal, a line per stage elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::job::{Progress, Stage};

const STYLE: &str = "{prefix:>10} {bar:32} {pos}/{len} {elapsed:>4} {msg}";
/// Keeps the elapsed time moving while a stage is silent.
const TICK: Duration = Duration::from_millis(200);

/// Draws progress as it comes.
pub struct Bar {
    at_work: Mutex<Option<(Stage, ProgressBar)>>,
    drawn: bool,
}

impl Default for Bar {
    fn default() -> Self {
        Self { at_work: Mutex::default(), drawn: io::stderr().is_terminal() }
    }
}

impl Bar {
    /// Shows where a job stands.
    pub fn show(&self, progress: &Progress) {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work.as_ref().is_none_or(|(stage, _)| *stage != progress.stage) {
            if let Some((_, bar)) = at_work.take() {
                bar.finish_using_style();
            }
            *at_work = Some((progress.stage, self.bar(progress.stage)));
        }
        if let Some((_, bar)) = at_work.as_ref() {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(detail(progress));
        }
    }

    /// Leaves what is drawn as it stands.
    pub fn end(&self) {
        if let Some((_, bar)) = self.at_work.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.abandon();
        }
    }

    fn bar(&self, stage: Stage) -> ProgressBar {
        if !self.drawn {
            // A closed standard error is no reason to stop a job.
            let _ = writeln!(io::stderr(), "{stage}");
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0).with_prefix(stage.as_str()).with_finish(ProgressFinish::AndLeave);
        bar.set_style(ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(TICK);
        bar
    }
}

fn detail(progress: &Progress) -> String {
    let layer = progress.layer.map(|layer| format!("layer {layer}"));
    let training = progress.training.map(|training| training.to_string());
    let parts: Vec<String> = layer.into_iter().chain(progress.part.clone()).chain(training).collect();
    let left = progress.seconds_left.map(|seconds| format!("(all done in {})", length(seconds)));
    [parts.join(" "), left.unwrap_or_default()].join(" ").trim().to_owned()
}

/// A length of time in the unit that suits it.
fn length(seconds: u64) -> String {
    match seconds {
        ..90 => format!("{seconds} s"),
        90..5400 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Training;

    #[test]
    fn layer_and_part_are_shown_where_there_are_any() {
        assert_eq!(detail(&Progress::new(Stage::Load, 0, 1)), "");
        let progress = Progress { layer: Some(3), part: Some("mlp".into()), ..Progress::new(Stage::Gradients, 0, 1) };
        let known = Progress { seconds_left: Some(100), ..progress.clone() };
        assert_eq!(detail(&known), "layer 3 mlp (all done in 2 min)");
        assert_eq!(detail(&progress), "layer 3 mlp");
        let training = Some(Training { loss: 2.5, learning_rate: 3e-4, tokens_per_second: 812.4 });
        let learning = Progress { training, ..Progress::new(Stage::Recover, 3, 9) };
        assert_eq!(detail(&learning), "loss 2.500, lr 3.0e-4, 812 tokens/s");
    }
}
