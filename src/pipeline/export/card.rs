//! The model card, README.md of a checkpoint: what it was made from and how, what it costs, how to load it.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Map, Value, json};

use super::{PYTHON, place_of};
use crate::{
    checkpoint::{self, CARD},
    job::{
        CheckpointReport, ModelSource, Report,
        spec::{ExportFormat, Kind, Method},
    },
    pipeline::Error,
};

/// What of the source's card holds for the compressed model too.
const CARRIED: [&str; 4] = ["license", "license_name", "license_link", "language"];

/// Writes the card of every checkpoint; the licence is that of the source's card in `source`.
pub(in crate::pipeline) fn write_cards(report: &Report, source: &Path, output: &Path) -> Result<(), Error> {
    let known = fs::read(source.join(CARD)).map_or_else(|_| Map::new(), |text| front_matter(&text));
    for checkpoint in &report.checkpoints {
        let place = place_of(output, &checkpoint.folder);
        // Classes that transformers does not have lie beside the weights that need them.
        let factored = PYTHON.iter().all(|(name, _)| place.join(name).is_file());
        let path = place.join(CARD);
        fs::write(&path, card(report, checkpoint, factored, &known)?).map_err(checkpoint::Error::io(&path))?;
    }
    Ok(())
}

/// The fields at the top of a card, between two lines of dashes; none where they cannot be read.
fn front_matter(card: &[u8]) -> Map<String, Value> {
    let text = String::from_utf8_lossy(card);
    let rest = text.trim_start_matches('\u{feff}').strip_prefix("---").unwrap_or_default();
    let fields = rest.split("\n---").next().unwrap_or_default();
    yaml_serde::from_str(fields).unwrap_or_default()
}

fn card(
    report: &Report,
    checkpoint: &CheckpointReport,
    factored: bool,
    known: &Map<String, Value>,
) -> Result<String, Error> {
    let fields = yaml_serde::to_string(&fields(report, factored, known));
    let fields = fields.map_err(|error| Error::internal(format!("the model card: {error}")))?;
    let mut text = format!("---\n{fields}---\n\n# {}\n\n", title(report));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", summary(report, checkpoint, factored));
    let _ = writeln!(text, "## Before and after\n\n{}", table(report, checkpoint));
    let _ = writeln!(text, "## Load it\n\n{}", recipe(factored));
    let _ = writeln!(text, "## How it was made\n\n{}", job(report)?);
    let _ = write!(text, "## Licence\n\n{}", licence(known));
    Ok(text)
}

fn fields(report: &Report, factored: bool, known: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = Map::new();
    let base = match &report.spec.model {
        ModelSource::Hub { repository, .. } => Some(json!(repository)),
        ModelSource::Local { .. } | ModelSource::Job(_) => known.get("base_model").cloned(),
    };
    fields.extend(base.map(|base| ("base_model".to_owned(), base)));
    fields.extend(CARRIED.iter().filter_map(|name| Some(((*name).to_owned(), known.get(*name)?.clone()))));
    fields.insert("library_name".to_owned(), json!("transformers"));
    fields.insert("pipeline_tag".to_owned(), json!("text-generation"));
    let mut tags = vec!["grasp", "graspd", "compressed"];
    if factored {
        tags.extend(["low-rank", "custom_code"]);
    }
    fields.insert("tags".to_owned(), json!(tags));
    fields
}

fn name(report: &Report) -> String {
    match &report.spec.model {
        ModelSource::Hub { repository, .. } => repository.rsplit('/').next().unwrap_or(repository).to_owned(),
        ModelSource::Local { name } => name.clone(),
        ModelSource::Job(id) => format!("The model of job {id}"),
    }
}

fn title(report: &Report) -> String {
    let done = if report.spec.kind == Kind::Recover { "trained with graspd" } else { "compressed with GRASP" };
    format!("{}, {done}", name(report))
}

fn summary(report: &Report, checkpoint: &CheckpointReport, factored: bool) -> String {
    let mut source = match &report.spec.model {
        ModelSource::Hub { repository, .. } => format!("[{repository}](https://huggingface.co/{repository})"),
        ModelSource::Local { name } => format!("`{name}`"),
        ModelSource::Job(id) => format!("what the job `{id}` published"),
    };
    if let Some(revision) = &report.model.revision {
        let _ = write!(source, " at commit `{revision}`");
    }
    let layers: Vec<String> = report.layers.redundant.iter().map(ToString::to_string).collect();
    let layers = layers.join(", ");
    let made = match report.spec.grasp.method {
        _ if report.spec.kind == Kind::Recover => {
            format!("This is {source}, as it was, in whose layers {layers} training went on.")
        }
        Method::Grasp => format!(
            "This is {source}. In the layers {layers}, those that change their input least, every weight matrix keeps \
             only the singular triplets that matter to the loss \
             (GRASP, [arXiv 2501.00339](https://arxiv.org/abs/2501.00339))."
        ),
        Method::Remove => {
            format!("This is {source} without the layers {layers}, those that change their input least.")
        }
    };
    let trained = match &report.spec.recovery {
        Some(recovery) => format!(" It was then trained on {}.", recovery.dataset),
        None => String::new(),
    };
    let form = match (factored, checkpoint.format) {
        (true, _) if report.spec.kind == Kind::Recover => "Some of its matrices are stored as two small factors.",
        (true, _) => {
            "Each such matrix is stored as two small factors, so the model is smaller and faster than its source."
        }
        (false, ExportFormat::Dense)
            if report.spec.kind == Kind::Compress && report.spec.grasp.method == Method::Grasp =>
        {
            "The factors are multiplied out into ordinary matrices: same size and speed as the source, for tools that \
             know no factors."
        }
        (false, _) => "It is an ordinary model of its architecture.",
    };
    format!("{made}{trained} {form}")
}

fn table(report: &Report, checkpoint: &CheckpointReport) -> String {
    let trained = report.recovery.is_some();
    let (head, rule, none) = if trained { (" | recovered", "|---", " | ") } else { ("", "", "") };
    let mut rows = format!(
        "| | before | after{head} |\n|---|---|---{rule}|\n| parameters | {} | {}{none} |\n| bytes of safetensors | {} | {}{none} |\n",
        report.parameters.before, checkpoint.parameters, report.bytes.before, checkpoint.bytes
    );
    for (name, score) in report.evaluation.iter().flat_map(|evaluation| &evaluation.perplexity) {
        let before = score.before.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let _ = writeln!(
            rows,
            "| perplexity, {name}, windows of {} tokens | {before} | {:.2}{} |",
            score.window,
            score.after,
            score.recovered.map_or_else(String::new, |recovered| format!(" | {recovered:.2}"))
        );
    }
    rows
}

fn recipe(factored: bool) -> String {
    let trust = if factored { ", trust_remote_code=True" } else { "" };
    let note = if factored {
        "`trust_remote_code` runs the two Python files of this folder, which define the factored layers; without it \
         loading fails.\n"
    } else {
        ""
    };
    format!(
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\
         model = AutoModelForCausalLM.from_pretrained(\"PATH\"{trust})\n\
         tokenizer = AutoTokenizer.from_pretrained(\"PATH\")\n```\n\n{note}"
    )
}

fn job(report: &Report) -> Result<String, Error> {
    let mut spec = serde_json::to_value(&report.spec).map_err(|error| Error::internal(error.to_string()))?;
    if let Some(fields) = spec.as_object_mut() {
        // The user's own labels are nobody else's business.
        fields.remove("metadata");
    }
    Ok(format!("By graspd {}, with this job:\n\n```json\n{spec:#}\n```\n", report.version))
}

fn licence(known: &Map<String, Value>) -> String {
    let text = |name: &str| known.get(name).and_then(Value::as_str);
    match (text("license_name").or_else(|| text("license")), text("license_link")) {
        (Some(name), Some(link)) => format!("That of the source: [{name}]({link}).\n"),
        (Some(name), None) => format!("That of the source: {name}.\n"),
        (None, _) => "The source names none; ask its owners before you pass this model on.\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_is_found_in_a_card_and_nothing_in_what_is_none() {
        let known =
            front_matter(b"---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\ntags:\n- x\n---\n# T");
        assert_eq!(licence(&known), "That of the source: [llama3](LICENSE).\n");
        for text in
            [&b"# Title\n---\nlicense: mit\n---"[..], b"", b"---\n: : [\n---\n", b"---\n- a\n---\n", b"\xff\xfe"]
        {
            assert!(front_matter(text).is_empty(), "{}", String::from_utf8_lossy(text));
        }
    }
}
