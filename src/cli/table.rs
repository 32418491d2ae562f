//! A report as a table for people.

use std::fmt::Write;

use crate::job::{
    AverageScores, EvaluationReport, GenerationReport, InferenceFigures, InferenceReport, RecoveryReport, Report,
    RollingReport, RollingScores, TaskReport, TaskScores,
};

/// What became of a model: parameters, bytes, perplexities, layers and time.
pub fn summary(report: &Report) -> String {
    let mut rows = vec![
        counts("parameters", report.parameters.before, report.parameters.after),
        counts("bytes on disk", report.bytes.before, report.bytes.after),
    ];
    for (name, score) in report.evaluation.iter().flat_map(|evaluation| &evaluation.perplexity) {
        let three = |value: f64| format!("{value:.3}");
        rows.push(Row::of(format!("perplexity {name}"), score.before, score.after, three));
        if let Some(recovered) = score.recovered {
            rows.push(Row::of(format!("  {name} recovered"), Some(score.after), recovered, three));
        }
    }
    rows.extend(report.recovery.iter().flat_map(|recovery| held_out(report, recovery)));
    for (name, task) in report.evaluation.iter().flat_map(|evaluation| &evaluation.rolling) {
        rows.extend(rolling(name, task));
    }
    for (name, task) in report.evaluation.iter().flat_map(|evaluation| &evaluation.generation) {
        rows.extend(written(name, task));
    }
    rows.extend(report.evaluation.iter().filter_map(|evaluation| evaluation.inference.as_ref()).flat_map(inference));
    let mut text = draw(&rows);
    if let Some(evaluation) = &report.evaluation {
        text.push_str(&accuracies(evaluation));
    }
    let layers: Vec<String> = report.layers.redundant.iter().map(ToString::to_string).collect();
    let seconds: f64 = report.stages.iter().map(|stage| stage.seconds).sum();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\nlayers     {}", layers.join(", "));
    let _ = writeln!(
        text,
        "removed    {:.1} % of all parameters, {:.1} % of the layers' linear ones",
        100.0 * report.removed.all,
        100.0 * report.removed.linear
    );
    if let Some(predicted) = report.predicted_loss_rise {
        let _ = writeln!(text, "loss       {}", loss_rise(predicted, report));
    }
    if let Some(recovery) = &report.recovery {
        let _ = writeln!(text, "recovery   {} steps, {:.0} tokens/s", recovery.steps, recovery.tokens_per_second);
    }
    let _ = writeln!(text, "time       {seconds:.1} s on {}", report.device);
    for note in &report.notes {
        let _ = writeln!(text, "note       {note}");
    }
    text
}

/// Perplexities of the records that recovery kept back of what it trained on.
fn held_out(report: &Report, recovery: &RecoveryReport) -> Vec<Row> {
    let Some(losses) = &recovery.held_out else { return Vec::new() };
    let dataset = report.spec.recovery.as_ref().map(|recovery| recovery.dataset.to_string()).unwrap_or_default();
    let shown = |loss: f64| format!("{:.3}", loss.exp());
    let row = |name: String, before: Option<f64>, after: f64| Row {
        name,
        before: before.map_or_else(|| "–".to_owned(), shown),
        after: shown(after),
        change: before.map_or_else(String::new, |before| change(before.exp(), after.exp())),
    };
    vec![
        row(format!("perplexity {dataset}, kept back"), losses.before, losses.after),
        row(format!("  {dataset} recovered"), Some(losses.after), losses.recovered),
    ]
}

/// Rolling perplexities by their names at lm-eval, after recovery where there was one.
fn rolling(name: &str, task: &RollingReport) -> impl Iterator<Item = Row> {
    type Metric = (&'static str, fn(&RollingScores) -> f64);
    let metrics: [Metric; 3] = [
        ("word_perplexity", |scores| scores.word_perplexity),
        ("byte_perplexity", |scores| scores.byte_perplexity),
        ("bits_per_byte", |scores| scores.bits_per_byte),
    ];
    let last = task.recovered.unwrap_or(task.after);
    let row = |(metric, of): Metric| Row::of(format!("{metric} {name}"), task.before.as_ref().map(of), of(&last), four);
    metrics.map(row).into_iter()
}

/// The scores of what the model wrote, after recovery where there was one.
fn written(name: &str, task: &GenerationReport) -> impl Iterator<Item = Row> {
    let last = task.recovered.as_ref().unwrap_or(&task.after);
    last.iter().map(move |(metric, mean, _)| {
        let before = task.before.as_ref().and_then(|before| before.mean(metric));
        Row::of(format!("{metric} {name}"), before, mean, four)
    })
}

fn four(value: f64) -> String {
    format!("{value:.4}")
}

/// Size and speed of generation, after recovery where there was one. The resident memory is in the report only: it is that
/// of the whole process, which holds the job beside the model.
fn inference(report: &InferenceReport) -> Vec<Row> {
    let last = report.recovered.unwrap_or(report.after);
    let row = |name: &str, of: fn(&InferenceFigures) -> f64| {
        let number = |value: f64| if value < 1000.0 { format!("{value:.1}") } else { grouped(value.round() as u64) };
        Row::of(name.to_owned(), report.before.as_ref().map(of), of(&last), number)
    };
    vec![
        row("weights, bytes", |figures| figures.weight_bytes as f64),
        row("generated tokens/s", |figures| figures.generated_tokens_per_second),
        row("prefill tokens/s", |figures| figures.prefill_tokens_per_second),
    ]
}

/// The rise of the loss as predicted, and as measured on every text.
fn loss_rise(predicted: f64, report: &Report) -> String {
    let scores = report.evaluation.iter().flat_map(|evaluation| &evaluation.perplexity);
    let measured: Vec<String> = scores
        .filter_map(|(name, score)| score.loss_rise.map(|rise| format!("{rise:+.3} measured on {name}")))
        .collect();
    [vec![format!("{predicted:+.3} nats a token predicted")], measured].concat().join(", ")
}

/// A state of the model: its name, its average, and its scores on a task.
type State = (&'static str, Option<AverageScores>, fn(&TaskReport) -> Option<TaskScores>);

/// The paper's table: a row for each state of the model, a column for each task, the average and what it lost.
fn accuracies(evaluation: &EvaluationReport) -> String {
    let Some(average) = evaluation.average else { return String::new() };
    let line = |name: &str, cells: Vec<String>| {
        let columns = evaluation.tasks.keys().map(String::as_str).chain(["average", "loss"]);
        let cells = columns.zip(cells).map(|(column, cell)| format!("  {cell:>width$}", width = column.len().max(6)));
        format!("{name:<10}{}\n", cells.collect::<String>())
    };
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    let head = evaluation.tasks.keys().cloned().chain(["average".to_owned(), "loss".to_owned()]);
    let mut text = format!("\n{}", line("acc, %", head.collect()));
    let rows: [State; 3] = [
        ("dense", average.before, |task| task.before),
        ("compressed", Some(average.after), |task| Some(task.after)),
        ("recovered", average.recovered, |task| task.recovered),
    ];
    for (name, mean, of) in rows {
        let Some(mean) = mean else { continue };
        let cells = evaluation.tasks.values().map(|task| of(task).map_or_else(String::new, |score| percent(score.acc)));
        let lost = average.before.filter(|_| name != "dense").map(|dense| percent(dense.acc - mean.acc));
        text.push_str(&line(name, cells.chain([percent(mean.acc)]).chain(lost).collect()));
    }
    text
}

struct Row {
    name: String,
    before: String,
    after: String,
    change: String,
}

impl Row {
    fn of(name: String, before: Option<f64>, after: f64, shown: impl Fn(f64) -> String) -> Self {
        Self {
            name,
            before: before.map_or_else(|| "–".to_owned(), &shown),
            after: shown(after),
            change: before.map_or_else(String::new, |before| change(before, after)),
        }
    }
}

fn counts(name: &str, before: u64, after: u64) -> Row {
    Row {
        name: name.to_owned(),
        before: grouped(before),
        after: grouped(after),
        change: change(before as f64, after as f64),
    }
}

fn change(before: f64, after: f64) -> String {
    if before > 0.0 { format!("{:+.1} %", 100.0 * (after / before - 1.0)) } else { String::new() }
}

fn draw(rows: &[Row]) -> String {
    let header = Row { name: String::new(), before: "before".into(), after: "after".into(), change: "change".into() };
    let all = || std::iter::once(&header).chain(rows);
    let widest = |column: fn(&Row) -> &str| all().map(|row| column(row).chars().count()).max().unwrap_or_default();
    let (name, before) = (widest(|row| &row.name), widest(|row| &row.before));
    let (after, change) = (widest(|row| &row.after), widest(|row| &row.change));
    let mut text = String::new();
    for row in all() {
        let _ = writeln!(
            text,
            "{:<name$}  {:>before$}  {:>after$}  {:>change$}",
            row.name, row.before, row.after, row.change
        );
    }
    text
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let text = draw(&[counts("parameters", 2_000_000, 1_500_000), counts("bytes on disk", 0, 5)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "parameters     2,000,000  1,500,000  -25.0 %");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
    }
}
