//! `graspd sweep`: several sizes and settings of one job, and the table of what came of them.

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use super::compress;
use crate::job::{EvaluationReport, JobSpec, PerplexityReport, Report, Stage, TaskReport, TaskScores};

/// A sweep on the command line.
#[derive(Args, Debug)]
#[group(id = "sweep")]
pub struct Arguments {
    /// Shares of all parameters removed, comma-separated
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_values_t = [0.05, 0.1, 0.2, 0.3, 0.4])]
    sizes: Vec<f64>,
    /// What is compared at each size, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values = ["remove", "paper", "best"])]
    settings: Vec<Setting>,
    /// What all have in common; `--out` gets the table as sweep.md and sweep.json, but no checkpoint
    #[command(flatten)]
    pub job: compress::Arguments,
}

/// A row of the table at each size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// The layers of lowest block influence are deleted.
    Remove,
    /// As published.
    Paper,
    /// What loses least.
    Best,
}

impl Setting {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Paper => "paper",
            Self::Best => "best",
        }
    }
}

/// A job of the sweep.
#[derive(Debug, Serialize)]
pub struct Row<T> {
    /// What is compared.
    pub setting: Setting,
    /// Share of all parameters that was asked to go.
    pub size: f64,
    /// The job, then its report.
    #[serde(rename = "report")]
    pub what: T,
}

impl Arguments {
    /// The jobs, those of one setting one after the other, since they have most in common.
    ///
    /// # Errors
    /// [`compress::ArgumentsError`] says which argument or field is wrong.
    pub fn jobs(&self) -> Result<Vec<Row<JobSpec>>, compress::ArgumentsError> {
        let mut settings = self.settings.clone();
        settings.sort_unstable();
        settings.dedup();
        let each = |setting: Setting| self.sizes.iter().map(move |&size| (setting, size));
        let job = |(setting, size): (Setting, f64)| {
            let mut body = self.job.body()?;
            let grasp = body.entry("grasp").or_insert_with(|| json!({}));
            if let Value::Object(grasp) = grasp {
                let (name, word) = match setting {
                    Setting::Remove => ("method", json!("remove")),
                    Setting::Paper | Setting::Best => ("preset", json!(setting.as_str())),
                };
                grasp.insert(name.to_owned(), word);
                grasp.insert("target_compression".to_owned(), compress::number(size));
            }
            Ok(Row { setting, size, what: JobSpec::parse(&Value::Object(body))? })
        };
        settings.into_iter().flat_map(each).map(job).collect()
    }
}

/// The table in Markdown: the source, then a row for each job, by size.
pub fn table(rows: &[Row<Report>]) -> String {
    let mut rows: Vec<&Row<Report>> = rows.iter().collect();
    rows.sort_by(|a, b| a.size.total_cmp(&b.size).then(a.setting.cmp(&b.setting)));
    let first = rows.first().and_then(|row| row.what.evaluation.as_ref());
    let mut head = ["removed", "of the linear ones", "setting", "seconds"].map(str::to_owned).to_vec();
    head.extend(first.iter().flat_map(|scores| scores.perplexity.keys().chain(scores.tasks.keys()).cloned()));
    let mut dense = ["–", "–", "dense", ""].map(str::to_owned).to_vec();
    dense.extend(first.iter().flat_map(|scores| cells(scores, |text| text.before, |task| task.before)));
    let mut lines = vec![head.clone(), vec!["---".to_owned(); head.len()], dense];
    for Row { setting, what: report, .. } in rows {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut line = vec![
            percent(report.removed.all),
            percent(report.removed.linear),
            setting.as_str().to_owned(),
            format!("{:.0}", seconds(report)),
        ];
        let scores = report.evaluation.iter();
        line.extend(scores.flat_map(|scores| cells(scores, |text| Some(text.after), |task| Some(task.after))));
        lines.push(line);
    }
    let lines: Vec<String> = lines.iter().map(|line| format!("| {} |", line.join(" | "))).collect();
    lines.join("\n") + "\n"
}

/// The perplexities and accuracies of one state of the model.
fn cells(
    scores: &EvaluationReport,
    perplexity: impl Fn(&PerplexityReport) -> Option<f64>,
    accuracy: impl Fn(&TaskReport) -> Option<TaskScores>,
) -> Vec<String> {
    let texts = scores.perplexity.values().map(|text| perplexity(text).map(|value| format!("{value:.2}")));
    let tasks = scores.tasks.values().map(|task| accuracy(task).map(|scores| format!("{:.3}", scores.acc)));
    texts.chain(tasks).map(Option::unwrap_or_default).collect()
}

/// What the compression itself took: what an earlier row had done already is not in it.
fn seconds(report: &Report) -> f64 {
    let own = |stage: Stage| matches!(stage, Stage::Influence | Stage::Gradients | Stage::Factorize);
    report.stages.iter().filter(|stage| own(stage.stage)).map(|stage| stage.seconds).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::job::spec::{Method, Preset, Size};

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn every_setting_is_run_at_every_size() {
        let arguments = ["sweep", "--out", "x", "--model", "file:m", "--sizes", "0.1,0.3", "--settings", "best,remove"];
        let jobs = Command::parse_from(arguments).arguments.jobs().unwrap();
        let found: Vec<_> = jobs.iter().map(|row| (row.setting, row.what.grasp.size, row.what.grasp.method)).collect();
        assert_eq!(
            found,
            [
                (Setting::Remove, Size::TargetCompression(0.1), Method::Remove),
                (Setting::Remove, Size::TargetCompression(0.3), Method::Remove),
                (Setting::Best, Size::TargetCompression(0.1), Method::Grasp),
                (Setting::Best, Size::TargetCompression(0.3), Method::Grasp),
            ]
        );
        let paper = ["sweep", "--out", "x", "--model", "file:m", "--settings", "paper", "--sizes", "0.2"];
        assert_eq!(Command::parse_from(paper).arguments.jobs().unwrap()[0].what.grasp.preset, Preset::Paper);
        let wrong = ["sweep", "--out", "x", "--model", "file:m", "--sizes", "1.5"];
        let complaint = Command::parse_from(wrong).arguments.jobs().unwrap_err().to_string();
        assert!(complaint.starts_with("grasp.target_compression"), "{complaint}");
    }
}
