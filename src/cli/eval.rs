//! `graspd eval`: scores of one model.

#![expect(clippy::doc_markdown, reason = "the comments of arguments are the help text")]

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::job::{EvaluationReport, InferenceReport, JobSpec, Report, RollingScores, SpecError, TaskScores};

/// An evaluation on the command line.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// org/name, org/name@revision, or file:NAME under the models folder
    #[arg(long)]
    model: String,
    /// openbookqa, arc_easy, arc_challenge, winogrande, hellaswag, piqa, mathqa, boolq, wikitext, coqa, longbench_hotpotqa
    /// and the others of `LongBench`; comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Data sets for perplexity, comma-separated [default: wikitext2, unless tasks are named]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    perplexity: Vec<String>,
    /// Tokens in a perplexity window
    #[arg(long, value_name = "N")]
    window: Option<u64>,
    /// Solved examples before each document of a multiple-choice task
    #[arg(long, value_name = "N")]
    num_fewshot: Option<u64>,
    /// At most so many documents of each task, and windows of each data set
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Measure speed and memory of generation too
    #[arg(long)]
    inference: bool,
    /// Keep the log-likelihoods and what the model writes there, a file for each task, and go on from them when the same command comes again
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Print the scores as JSON
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// The job these arguments name.
    ///
    /// # Errors
    /// [`SpecError`] says which field is wrong.
    pub fn job(&self) -> Result<JobSpec, SpecError> {
        let mut evaluation = json!({ "tasks": self.tasks, "inference": self.inference });
        if !(self.perplexity.is_empty() && self.tasks.is_empty()) {
            evaluation["perplexity"] = json!(self.perplexity);
        }
        for (name, value) in [("window", self.window), ("num_fewshot", self.num_fewshot), ("limit", self.limit)] {
            if let Some(value) = value {
                evaluation[name] = json!(value);
            }
        }
        JobSpec::parse(&json!({ "kind": "evaluate", "model": self.model, "evaluation": evaluation }))
    }
}

/// The scores alone: `{"tasks": {"piqa": {"acc", …}, "wikitext": {"word_perplexity", …}, "coqa": {"em", …}}, "average":
/// {…}, "perplexity": {…}}`.
pub fn scores(report: &Report) -> Value {
    let empty = EvaluationReport::default();
    let evaluation = report.evaluation.as_ref().unwrap_or(&empty);
    let mut tasks = json!({});
    for (name, task) in &evaluation.tasks {
        let mut row = json!(task.after);
        row["documents"] = json!(task.documents);
        row["num_fewshot"] = json!(task.num_fewshot);
        tasks[name] = row;
    }
    for (name, task) in &evaluation.rolling {
        let mut row = json!(task.after);
        row["documents"] = json!(task.documents);
        tasks[name] = row;
    }
    for (name, task) in &evaluation.generation {
        let mut row = json!(task.after);
        row["documents"] = json!(task.documents);
        tasks[name] = row;
    }
    let mut perplexity = json!({});
    for (name, text) in &evaluation.perplexity {
        perplexity[name] = json!({
            "perplexity": text.after, "tokens": text.tokens, "window": text.window, "protocol": text.protocol,
        });
    }
    let mut scores =
        json!({ "tasks": tasks, "average": evaluation.average.map(|average| average.after), "perplexity": perplexity });
    if let Some(inference) = &evaluation.inference {
        scores["inference"] = json!(inference.after);
    }
    scores
}

/// The scores as a table for people.
pub fn scores_table(report: &Report) -> String {
    let mut text = String::new();
    let share = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    if let Some(evaluation) = &report.evaluation {
        if !evaluation.tasks.is_empty() {
            let _ = writeln!(
                text,
                "{:<14} {:>9} {:>7} {:>7} {:>8} {:>7}",
                "task", "documents", "acc", "±", "acc_norm", "±"
            );
        }
        for (name, task) in &evaluation.tasks {
            let TaskScores { acc, acc_stderr, acc_norm, acc_norm_stderr } = task.after;
            let numbers = [Some(acc), acc_stderr, acc_norm, acc_norm_stderr].map(share);
            let [acc, acc_stderr, acc_norm, acc_norm_stderr] = numbers;
            let count = task.documents;
            let _ = writeln!(text, "{name:<14} {count:>9} {acc:>7} {acc_stderr:>7} {acc_norm:>8} {acc_norm_stderr:>7}");
        }
        if let Some(average) = &evaluation.average {
            let (acc, acc_norm) = (share(Some(average.after.acc)), share(average.after.acc_norm));
            let _ = writeln!(text, "{:<14} {:>9} {acc:>7} {:>7} {acc_norm:>8}", "average", "", "");
        }
        for (name, task) in &evaluation.rolling {
            let RollingScores { word_perplexity, byte_perplexity, bits_per_byte } = task.after;
            let _ = writeln!(
                text,
                "{name} (rolling): {word_perplexity:.4} a word, {byte_perplexity:.4} a byte, {bits_per_byte:.4} bits a byte; {} documents",
                task.documents
            );
        }
        for (name, task) in &evaluation.generation {
            let numbers = task.after.iter().map(|(metric, mean, stderr)| {
                let stderr = stderr.map_or_else(String::new, |stderr| format!(" ± {stderr:.4}"));
                format!("{metric} {mean:.4}{stderr}")
            });
            let numbers: Vec<String> = numbers.collect();
            let _ = writeln!(text, "{name} (generation): {}; {} documents", numbers.join(", "), task.documents);
        }
        for (name, perplexity) in &evaluation.perplexity {
            let _ = writeln!(text, "perplexity {name}: {:.3} on {} tokens", perplexity.after, perplexity.tokens);
        }
        if let Some(InferenceReport { after, .. }) = &evaluation.inference {
            let _ = writeln!(
                text,
                "inference: {:.1} tokens/s generated, {:.0} tokens/s prefill, {} bytes of weights, {} bytes resident",
                after.generated_tokens_per_second,
                after.prefill_tokens_per_second,
                after.weight_bytes,
                after.peak_memory_bytes
            );
        }
    }
    let seconds: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    let _ = writeln!(text, "{seconds:.1} s on {}", report.device);
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn job(arguments: &[&str]) -> Result<JobSpec, SpecError> {
        Command::parse_from(["eval", "--model", "file:m"].iter().chain(arguments)).arguments.job()
    }

    #[test]
    fn tasks_replace_the_default_perplexity() {
        let evaluation = |arguments: &[&str]| job(arguments).unwrap().evaluation.unwrap();
        let asked = evaluation(&["--tasks", "piqa,boolq", "--num-fewshot", "5", "--limit", "10"]);
        assert_eq!((asked.tasks.len(), asked.perplexity.len()), (2, 0));
        assert_eq!((asked.num_fewshot, asked.limit), (5, Some(10)));
        assert_eq!(evaluation(&[]).perplexity.len(), 1);
        assert_eq!(evaluation(&["--tasks", "piqa", "--perplexity", "ptb"]).perplexity.len(), 1);
    }

    #[test]
    fn an_unknown_task_is_named() {
        let complaint = job(&["--tasks", "piqa,quiz"]).unwrap_err();
        assert_eq!(complaint.field, "evaluation.tasks[1]");
    }
}
