//! The part of a body that says what to score.

use std::{fmt::Display, str::FromStr};

use super::{
    Evaluation, EvaluationBody, SpecError,
    check::{LONGEST_WINDOW, parse, within, wrong},
};
use crate::job::AnyTask;

const MOST_DATASETS: usize = 16;
const MOST_TASKS: usize = 64;
const MOST_SHOTS: usize = 64;

pub(super) fn check_evaluation(body: EvaluationBody) -> Result<Evaluation, SpecError> {
    let tasks: Vec<AnyTask> = names("evaluation.tasks", &body.tasks.unwrap_or_default(), MOST_TASKS)?;
    let perplexity = body.perplexity.unwrap_or_else(|| vec!["wikitext2".to_owned()]);
    if perplexity.is_empty() && tasks.is_empty() {
        let message = "names no data set, and evaluation.tasks no task; set evaluation to null to score nothing";
        return Err(wrong("evaluation.perplexity", message));
    }
    Ok(Evaluation {
        perplexity: names("evaluation.perplexity", &perplexity, MOST_DATASETS)?,
        window: within("evaluation.window", body.window.unwrap_or(2048), 2, LONGEST_WINDOW)?,
        tasks: tasks.iter().filter_map(|task| task.choice()).collect(),
        rolling: tasks.iter().filter_map(|task| task.rolling()).collect(),
        generation: tasks.iter().filter_map(|task| task.generation()).collect(),
        num_fewshot: within("evaluation.num_fewshot", body.num_fewshot.unwrap_or(0), 0, MOST_SHOTS)?,
        limit: body.limit.map(|limit| within("evaluation.limit", limit, 1, usize::MAX)).transpose()?,
        compare_dense: body.compare_dense.unwrap_or(true),
        inference: body.inference.unwrap_or(true),
    })
}

/// Different names of one kind.
fn names<T: FromStr<Err: Display> + PartialEq>(
    field: &str,
    names: &[String],
    most: usize,
) -> Result<Vec<T>, SpecError> {
    if names.len() > most {
        return Err(wrong(field, format!("must name at most {most}")));
    }
    let mut parsed = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name_parsed = parse(&field, name)?;
        if parsed.contains(&name_parsed) {
            return Err(wrong(field, format!("names {name} twice")));
        }
        parsed.push(name_parsed);
    }
    Ok(parsed)
}
