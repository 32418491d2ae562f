//! The report's rows, in the order of the tasks.

use indexmap::IndexMap;

use super::{Exams, Marks};
use crate::{
    eval::{Exam, Rolling},
    job::{
        AverageReport, AverageScores, EvaluationReport, GenerationReport, InferenceReport, PerplexityReport,
        RollingReport, TaskReport, TaskScores,
    },
};

/// What the report says of an evaluation; `before` is empty where the source was not scored.
pub(in crate::pipeline) fn evaluation_report(
    perplexity: IndexMap<String, PerplexityReport>,
    exams: &Exams,
    (before, after, recovered): (&Marks, &Marks, Option<&Marks>),
) -> EvaluationReport {
    let empty = Marks::default();
    let recovered = recovered.unwrap_or(&empty);
    let tasks = exams.choices.iter().filter_map(|exam| {
        let name = exam.task.as_str();
        let [before, after, recovered] = [before, after, recovered].map(|marks| marks.choices.get(name).copied());
        let (documents, protocol) = (exam.documents.volume.count, choice_protocol(exam));
        let num_fewshot = exam.few_shot.map_or(0, |(shots, _)| shots);
        Some((name.to_owned(), TaskReport { before, after: after?, recovered, documents, num_fewshot, protocol }))
    });
    let rolling = exams.rolling.iter().filter_map(|rolling| {
        let name = rolling.task.as_str();
        let [before, after, recovered] = [before, after, recovered].map(|marks| marks.rolling.get(name).copied());
        let (documents, window) = (rolling.documents, rolling.windows.volume.longest);
        let protocol = rolling_protocol(rolling);
        Some((name.to_owned(), RollingReport { before, after: after?, recovered, documents, window, protocol }))
    });
    let generation = exams.generation.iter().filter_map(|generative| {
        let name = generative.task.as_str();
        let [before, after, recovered] = [before, after, recovered].map(|marks| marks.generation.get(name).cloned());
        let (documents, max_new_tokens) = (generative.documents.volume.count, generative.form.max_new_tokens);
        let protocol = generative.protocol();
        Some((
            name.to_owned(),
            GenerationReport { before, after: after?, recovered, documents, max_new_tokens, protocol },
        ))
    });
    let (rolling, generation) = (rolling.collect(), generation.collect());
    let tasks: IndexMap<String, TaskReport> = tasks.collect();
    let (before, recovered) = (before.inference, recovered.inference);
    let inference = after.inference.map(|after| InferenceReport { before, after, recovered });
    EvaluationReport { perplexity, rolling, generation, average: average(&tasks), tasks, inference }
}

/// Means over the tasks; none without tasks.
fn average(tasks: &IndexMap<String, TaskReport>) -> Option<AverageReport> {
    let mean = |of: fn(&TaskReport) -> Option<TaskScores>| {
        let scores: Option<Vec<TaskScores>> = tasks.values().map(of).collect();
        scores.and_then(|scores| AverageScores::of(&scores))
    };
    let after = mean(|task| Some(task.after))?;
    Some(AverageReport { before: mean(|task| task.before), after, recovered: mean(|task| task.recovered) })
}

fn choice_protocol(exam: &Exam) -> String {
    let examples = match exam.few_shot {
        None => "zero-shot".to_owned(),
        Some((shots, split)) => format!("{shots} examples from the {split} split, drawn with seed 1234"),
    };
    format!("lm-evaluation-harness 0.4.9, {} split, {examples}; acc_norm by characters", exam.split)
}

fn rolling_protocol(rolling: &Rolling) -> String {
    format!(
        "lm-evaluation-harness 0.4.9, {} split, detokenised; {} rolling windows of at most {} tokens in which every token is scored once; words and bytes are those of the text before",
        rolling.split, rolling.windows.volume.count, rolling.windows.volume.longest
    )
}
