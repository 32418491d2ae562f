//! A report as a table for people.

use std::fmt::Write;

use crate::job::{EvaluationReport, RecoveryReport, Report};

/// What became of a model: parameters, bytes, perplexities, layers and time.
pub fn summary(report: &Report) -> String {
    let mut rows = vec![
        counts("parameters", report.parameters.before, report.parameters.after),
        counts("bytes on disk", report.bytes.before, report.bytes.after),
    ];
    for (name, score) in report.evaluation.iter().flat_map(|evaluation| &evaluation.perplexity) {
        rows.push(Row {
            name: format!("perplexity {name}"),
            before: score.before.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}")),
            after: format!("{:.3}", score.after),
            change: score.before.map_or_else(String::new, |before| change(before, score.after)),
        });
        if let Some(recovered) = score.recovered {
            rows.push(Row {
                name: format!("  {name} recovered"),
                before: format!("{:.3}", score.after),
                after: format!("{recovered:.3}"),
                change: change(score.after, recovered),
            });
        }
    }
    rows.extend(report.recovery.iter().flat_map(|recovery| held_out(report, recovery)));
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

/// The rise of the loss as predicted, and as measured on every text.
fn loss_rise(predicted: f64, report: &Report) -> String {
    let scores = report.evaluation.iter().flat_map(|evaluation| &evaluation.perplexity);
    let measured: Vec<String> = scores
        .filter_map(|(name, score)| score.loss_rise.map(|rise| format!("{rise:+.3} measured on {name}")))
        .collect();
    [vec![format!("{predicted:+.3} nats a token predicted")], measured].concat().join(", ")
}

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
    if let Some(dense) = average.before {
        let cells =
            evaluation.tasks.values().map(|task| task.before.map_or_else(String::new, |score| percent(score.acc)));
        text.push_str(&line("dense", cells.chain([percent(dense.acc)]).collect()));
    }
    let loss = average.before.map_or_else(String::new, |dense| percent(dense.acc - average.after.acc));
    let cells = evaluation.tasks.values().map(|task| percent(task.after.acc));
    text.push_str(&line("compressed", cells.chain([percent(average.after.acc), loss]).collect()));
    if let Some(recovered) = average.recovered {
        let loss = average.before.map_or_else(String::new, |dense| percent(dense.acc - recovered.acc));
        let cells =
            evaluation.tasks.values().map(|task| task.recovered.map_or_else(String::new, |score| percent(score.acc)));
        text.push_str(&line("recovered", cells.chain([percent(recovered.acc), loss]).collect()));
    }
    text
}

struct Row {
    name: String,
    before: String,
    after: String,
    change: String,
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
