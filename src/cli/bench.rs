//! `graspd bench`: its arguments, and its figures as a table or JSON.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

/// What to measure. Lists give one run for every combination.
#[derive(Args, Debug)]
pub struct Arguments {
    /// file:NAME under the models folder [default: the small sample model]
    #[arg(long)]
    pub model: Option<String>,
    /// Calibration windows
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "8")]
    pub samples: Vec<usize>,
    /// Tokens in a window
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "512")]
    pub sequence_length: Vec<usize>,
    /// How many layers are compressed
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "2")]
    pub layers: Vec<usize>,
    /// one_shot, iterative or both
    #[arg(long, value_delimiter = ',', default_value = "one_shot")]
    pub schedule: Vec<String>,
    /// More fields of the job's grasp, as JSON: '{"retain_ratio": 0.3}'
    #[arg(long, value_name = "JSON", value_parser = fields, default_value = "{}")]
    pub grasp: Value,
    /// Windows of the same length to score, before and after; 0 for none
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub evaluate: usize,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

fn fields(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let fields = value.as_object().ok_or("a JSON object is expected")?;
    match ["layers", "schedule"].into_iter().find(|name| fields.contains_key(*name)) {
        Some(name) => Err(format!("{name} is given by --{name}")),
        None => Ok(value),
    }
}

/// One run: what was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Calibration windows.
    pub samples: usize,
    /// Tokens in each.
    pub sequence_length: usize,
    /// Layers that are compressed.
    pub layers: usize,
    /// `one_shot` or `iterative`.
    pub schedule: String,
}

impl Arguments {
    /// Every combination of the lists.
    pub fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        for schedule in &self.schedule {
            for &layers in &self.layers {
                for &sequence_length in &self.sequence_length {
                    for &samples in &self.samples {
                        all.push(Setting { samples, sequence_length, layers, schedule: schedule.clone() });
                    }
                }
            }
        }
        all
    }

    /// The job of a setting, on the texts `file:bench` of the measurement.
    pub fn job(&self, model: &str, setting: &Setting) -> Value {
        let mut grasp = self.grasp.clone();
        if grasp.get("preset").is_none() {
            grasp["preset"] = json!("paper");
        }
        grasp["layers"] = json!(setting.layers);
        grasp["schedule"] = json!(setting.schedule);
        let evaluation = json!({
            "perplexity": ["file:bench"],
            "window": setting.sequence_length,
            "limit": self.evaluate,
        });
        json!({
            "model": model,
            "calibration": {
                "dataset": "file:bench",
                "samples": setting.samples,
                "sequence_length": setting.sequence_length,
                "selection": "first",
            },
            "grasp": grasp,
            "evaluation": if self.evaluate == 0 { Value::Null } else { evaluation },
        })
    }
}

/// What a stage took.
#[derive(Clone, Debug, Serialize)]
pub struct StageFigures {
    /// Its name.
    pub stage: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Floating-point operations in units of 10⁹, counted from shapes; for stages that are matrix products.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflop: Option<f64>,
    /// Tokens that went through the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

/// What a run took.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What was asked for.
    #[serde(flatten)]
    pub setting: Setting,
    /// Stage by stage.
    pub stages: Vec<StageFigures>,
    /// All stages but the evaluation, in seconds.
    pub seconds: f64,
    /// Highest resident set size of the process, in bytes.
    pub peak_rss_bytes: u64,
    /// `resident` or `streamed`.
    pub residency: String,
}

/// All figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The model's name.
    pub model: String,
    /// Product of two 2048 × 2048 f32 matrices in GFLOP/s, the median of several.
    pub sgemm_gflops: f64,
    /// One per setting.
    pub runs: Vec<Run>,
}

/// The figures for people.
pub fn table(figures: &Figures) -> String {
    let mut text = format!("{}; sgemm of 2048³ in f32: {:.0} GFLOP/s\n", figures.model, figures.sgemm_gflops);
    for run in &figures.runs {
        let Setting { samples, sequence_length, layers, schedule } = &run.setting;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n{schedule}, {samples} windows of {sequence_length} tokens, {layers} layers, {}\n\
             stage          seconds     GFLOP   GFLOP/s   % of sgemm   tokens/s",
            run.residency
        );
        for stage in &run.stages {
            let _ = writeln!(text, "{}", row(stage, figures.sgemm_gflops));
        }
        let whole = StageFigures {
            stage: "compression".to_owned(),
            seconds: run.seconds,
            gflop: Some(
                run.stages.iter().filter(|stage| stage.stage != "evaluate").filter_map(|stage| stage.gflop).sum(),
            ),
            tokens: Some((samples * sequence_length) as u64),
        };
        let _ = writeln!(text, "{}", row(&whole, figures.sgemm_gflops));
        let _ = writeln!(text, "peak resident set {} MiB", run.peak_rss_bytes >> 20);
    }
    text
}

fn row(stage: &StageFigures, sgemm: f64) -> String {
    let mut text = format!("{:<14} {:>7.2}", stage.stage, stage.seconds);
    if let Some(gflop) = stage.gflop {
        let rate = gflop / stage.seconds;
        let _ = write!(text, " {gflop:>9.0} {rate:>9.0} {:>12.0}", 100.0 * rate / sgemm);
    }
    if let Some(tokens) = stage.tokens {
        let _ = write!(text, " {:>10.0}", tokens as f64 / stage.seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::job::JobSpec;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn every_combination_of_the_lists_is_a_valid_job() {
        let line = ["bench", "--samples", "8,16", "--layers", "2,4", "--schedule", "one_shot,iterative"];
        let Line { arguments } = Line::parse_from(line);
        let settings = arguments.settings();
        assert_eq!(settings.len(), 8);
        for setting in &settings {
            let spec = JobSpec::parse(&arguments.job("file:tiny-llama", setting)).unwrap();
            assert_eq!(spec.calibration.samples, setting.samples);
        }
    }

    #[test]
    fn what_an_option_decides_is_refused_among_the_other_fields() {
        let parse = |grasp| Line::try_parse_from(["bench", "--grasp", grasp]);
        assert!(parse(r#"{"retain_ratio": 0.3}"#).is_ok());
        for (grasp, words) in
            [(r#"{"layers": [3, 4]}"#, "layers is given by --layers"), ("7", "a JSON object is expected")]
        {
            let complaint = parse(grasp).err().unwrap().to_string();
            assert!(complaint.contains(words), "{complaint}");
        }
    }

    #[test]
    fn the_table_has_a_share_of_the_machines_rate_for_every_product() {
        let stage = |name: &str, gflop| StageFigures { stage: name.into(), seconds: 2.0, gflop, tokens: None };
        let setting = Setting { samples: 8, sequence_length: 512, layers: 2, schedule: "one_shot".into() };
        let stages = vec![stage("influence", Some(100.0)), stage("factorize", None)];
        let run = Run { setting, stages, seconds: 4.0, peak_rss_bytes: 64 << 20, residency: "resident".into() };
        let text = table(&Figures { model: "file:m".into(), sgemm_gflops: 100.0, runs: vec![run] });
        assert!(text.contains("influence         2.00       100        50           50"), "{text}");
        assert!(text.contains("compression       4.00       100        25           25       1024"), "{text}");
        assert!(text.contains("peak resident set 64 MiB"));
    }
}
