//! Stage 5: multiple-choice tasks. The log-likelihoods of finished batches lie in the work folder, one document a line,
//! and a later attempt goes on behind them.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use indexmap::IndexMap;

use super::{Context, Error, state::State};
use crate::{
    checkpoint,
    eval::{self, Asking, Encoder, Exam},
    job::{AverageReport, AverageScores, Progress, Stage, TaskReport, TaskScores, spec::Evaluation},
    model::{Config, Decoder},
};

/// Accuracies by task.
pub(super) type Accuracies = IndexMap<String, TaskScores>;

/// Reads and encodes the tasks that a job is scored on.
pub(super) fn read_exams(
    evaluation: &Evaluation,
    config: &Config,
    folder: &Path,
    context: &Context<'_>,
) -> Result<Vec<Exam>, Error> {
    if evaluation.tasks.is_empty() {
        return Ok(Vec::new());
    }
    let encoder = Encoder::open(folder, config.vocab_size)?;
    let asking = Asking {
        limit: evaluation.limit,
        num_fewshot: evaluation.num_fewshot,
        longest: config.max_position_embeddings,
    };
    let mut exams = Vec::new();
    for (done, &task) in evaluation.tasks.iter().enumerate() {
        let progress = Progress::new(Stage::Evaluate, done as u64, evaluation.tasks.len() as u64);
        context.progress(Progress { part: Some(format!("reading {task}")), ..progress })?;
        let settings = context.settings;
        exams.push(Exam::read(task, asking, &encoder, &settings.datasets_dir, &settings.hub)?);
    }
    Ok(exams)
}

/// Asks the decoder every question; `part` says which model it is.
pub(super) fn take_exams(
    decoder: &mut Decoder,
    exams: &[Exam],
    part: &str,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Accuracies, Error> {
    let mut accuracies = Accuracies::new();
    decoder.reach(exams.iter().map(Exam::longest).max().unwrap_or(0))?;
    for exam in exams {
        let scores = state.timed(Stage::Evaluate, |state| take(decoder, exam, part, state, context))?;
        accuracies.insert(exam.task.to_string(), scores);
    }
    Ok(accuracies)
}

fn take(decoder: &Decoder, exam: &Exam, part: &str, state: &State, context: &Context<'_>) -> Result<TaskScores, Error> {
    let path = state.path(&format!("{part}-{}.jsonl", exam.task));
    let (mut sheet, mut answers) = Sheet::open(path, &state.finished.fingerprint)?;
    let total = exam.documents.len();
    answers.truncate(total);
    while answers.len() < total {
        let batch = exam.batch(answers.len());
        let mut progress = Progress::new(Stage::Evaluate, answers.len() as u64, total as u64);
        progress.part = Some(format!("{part}, {}", exam.task));
        let found = eval::log_likelihoods(decoder, batch, &mut || {
            context.progress(progress.clone()).map_err(|_| checkpoint::Error::Cancelled)
        })?;
        if found.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::numerical(format!(
                "a log-likelihood of the {part} model on {} is not finite",
                exam.task
            )));
        }
        sheet.write(&found)?;
        answers.extend(found);
        context.observer.step_finished();
    }
    Ok(exam.scores(&answers))
}

/// The file with the answers to one task so far.
struct Sheet {
    path: PathBuf,
    file: File,
}

impl Sheet {
    /// Opens it behind the last whole answer; one of another job is begun anew.
    fn open(path: PathBuf, fingerprint: &str) -> Result<(Self, Vec<Vec<f64>>), Error> {
        let head = serde_json::Value::from(fingerprint).to_string();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.split_inclusive('\n');
        let is_ours = lines.next().is_some_and(|line| line.trim_end() == head);
        let whole = lines.filter(|_| is_ours).map_while(|line| serde_json::from_str(line.strip_suffix('\n')?).ok());
        let answers: Vec<Vec<f64>> = whole.collect();
        // Written again whole, so that nothing torn stays in it.
        let file = File::create(&path).map_err(checkpoint::Error::io(&path))?;
        let mut sheet = Self { path, file };
        sheet.append(&format!("{head}\n"))?;
        sheet.write(&answers)?;
        Ok((sheet, answers))
    }

    fn write(&mut self, answers: &[Vec<f64>]) -> Result<(), Error> {
        let line = |answer: &Vec<f64>| serde_json::Value::from(answer.clone()).to_string() + "\n";
        self.append(&answers.iter().map(line).collect::<String>())
    }

    fn append(&mut self, text: &str) -> Result<(), Error> {
        Ok(self.file.write_all(text.as_bytes()).map_err(checkpoint::Error::io(&self.path))?)
    }
}

/// The report's rows, in the order of the tasks.
pub(super) fn task_reports(
    exams: &[Exam],
    before: &Accuracies,
    after: &Accuracies,
    recovered: Option<&Accuracies>,
) -> IndexMap<String, TaskReport> {
    let row = |exam: &Exam| {
        let name = exam.task.to_string();
        let report = TaskReport {
            before: before.get(&name).copied(),
            after: after.get(&name).copied()?,
            recovered: recovered.and_then(|accuracies| accuracies.get(&name)).copied(),
            documents: exam.documents.len(),
            num_fewshot: exam.few_shot.map_or(0, |(shots, _)| shots),
            protocol: protocol(exam),
        };
        Some((name, report))
    };
    exams.iter().filter_map(row).collect()
}

/// Means over the tasks; none without tasks.
pub(super) fn average(tasks: &IndexMap<String, TaskReport>) -> Option<AverageReport> {
    // Of tasks that were all scored in that state.
    let mean = |state: fn(&TaskReport) -> Option<TaskScores>| {
        let scores: Option<Vec<TaskScores>> = tasks.values().map(state).collect();
        AverageScores::of(&scores?)
    };
    Some(AverageReport {
        before: mean(|task| task.before),
        after: mean(|task| Some(task.after))?,
        recovered: mean(|task| task.recovered),
    })
}

fn protocol(exam: &Exam) -> String {
    let examples = match exam.few_shot {
        None => "zero-shot".to_owned(),
        Some((shots, split)) => format!("{shots} examples from the {split} split, drawn with seed 1234"),
    };
    format!("lm-evaluation-harness 0.4.9, {} split, {examples}; acc_norm by characters", exam.split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_up_to_the_last_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dense-piqa.jsonl");
        let open = |fingerprint| Sheet::open(path.clone(), fingerprint).unwrap();
        let (mut sheet, answers) = open("a");
        assert!(answers.is_empty());
        sheet.write(&[vec![-1.5, -2.0], vec![-3.0]]).unwrap();
        sheet.append("[-4.0").unwrap();
        assert_eq!(open("a").1, [vec![-1.5, -2.0], vec![-3.0]]);
        assert_eq!(open("a").1.len(), 2);
        assert!(open("b").1.is_empty());
    }
}
