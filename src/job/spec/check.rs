//! From a body to a spec: defaults, ranges and contradictions.

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

use serde_json::Value;

use super::{
    Calibration, CalibrationBody, CalibrationPart, Grasp, GraspBody, JobBody, JobSpec, Kind, LayerMetric, Layers,
    LayersBody, Method, Projection, Recovery, RecoveryBody, RecoveryTarget, Selection, ShardSizeBody, SigmaSplit, Size,
    SpecError, body::LayersWord, check_evaluation::check_evaluation, check_kind::check_kind, export::check_export,
    preset, recovery,
};

const MOST_SAMPLES: usize = 65_536;
pub(super) const LONGEST_WINDOW: usize = 131_072;
const MOST_LAYERS: usize = 4_096;
const MOST_DATASETS: usize = 16;
/// Up to here every whole number has a float of its own.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;
const PRIORITIES: RangeInclusive<i64> = -100..=100;
const LONGEST_URL: usize = 2_048;

pub(super) fn wrong(field: impl Into<String>, message: impl Into<String>) -> SpecError {
    SpecError { field: field.into(), message: message.into() }
}

/// Says which field a JSON error is about; serde's own path stops at the parent of an unknown or missing field.
pub(super) fn describe(error: &serde_path_to_error::Error<serde_json::Error>) -> SpecError {
    let message = error.inner().to_string();
    let parent = error.path().to_string();
    let quoted = message
        .split('`')
        .nth(1)
        .filter(|_| message.starts_with("unknown field") || message.starts_with("missing field"));
    let field = match (parent.as_str(), quoted) {
        (".", None) => "body".to_owned(),
        (".", Some(field)) => field.to_owned(),
        (parent, None) => parent.to_owned(),
        // serde_path_to_error already appends the unknown field on some paths.
        (parent, Some(field)) if parent == field || parent.ends_with(&format!(".{field}")) => parent.to_owned(),
        (parent, Some(field)) => format!("{parent}.{field}"),
    };
    let hint = match quoted {
        Some("ratio" | "compression_ratio") => {
            "; say which ratio: grasp.retain_ratio is the share kept, grasp.target_compression the share of the whole model removed"
        }
        _ => "",
    };
    wrong(field, format!("{message}{hint}"))
}

/// JSON knows no integers: 8.0 is as whole a number as 8, and some languages write it that way.
pub(super) fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < LARGEST_WHOLE => {
                Value::from(float as i64)
            }
            _ => value.clone(),
        },
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), whole_numbers(value))).collect(),
        _ => value.clone(),
    }
}

pub(super) fn check(body: JobBody) -> Result<JobSpec, SpecError> {
    let kind = check_kind(&body)?;
    let grasp = check_grasp(body.grasp.unwrap_or_default())?;
    Ok(JobSpec {
        kind,
        model: parse("model", &body.model)?,
        calibration: check_calibration(&body.calibration)?,
        recovery: body.recovery.as_ref().map(|body| check_recovery(body, &grasp, kind)).transpose()?,
        grasp,
        evaluation: body.evaluation.map(check_evaluation).transpose()?,
        export: check_export(body.export)?,
        metadata: check_metadata(body.metadata)?,
        webhook_url: body.webhook_url.map(check_webhook_url).transpose()?,
        priority: check_priority(body.priority)?,
        min_memory: body.min_memory.as_ref().map(check_min_memory).transpose()?,
    })
}

pub(super) fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, SpecError> {
    text.parse().map_err(|error: T::Err| wrong(field, error.to_string()))
}

pub(super) fn within(field: &str, value: usize, least: usize, most: usize) -> Result<usize, SpecError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(wrong(field, format!("{value} is out of range: from {least} to {most}")))
}

fn check_calibration(body: &CalibrationBody) -> Result<Calibration, SpecError> {
    let parts = check_parts(body)?;
    let samples = within("calibration.samples", body.samples.unwrap_or(128), 1, MOST_SAMPLES)?;
    if samples < parts.len() {
        return Err(wrong(
            "calibration.samples",
            format!("{samples} windows are too few for {} data sets", parts.len()),
        ));
    }
    Ok(Calibration {
        parts,
        samples,
        sequence_length: within("calibration.sequence_length", body.sequence_length.unwrap_or(512), 2, LONGEST_WINDOW)?,
        selection: body.selection.unwrap_or(Selection::Random),
        seed: body.seed.unwrap_or(42),
    })
}

fn check_parts(body: &CalibrationBody) -> Result<Vec<CalibrationPart>, SpecError> {
    let split = check_split("calibration.split", body.split.as_deref().unwrap_or("train"))?;
    let Some(datasets) = &body.datasets else {
        let dataset = parse("calibration.dataset", body.dataset.as_deref().unwrap_or("wikitext2"))?;
        return Ok(vec![CalibrationPart { dataset, split, weight: 1.0 }]);
    };
    if body.dataset.is_some() {
        return Err(wrong("calibration.datasets", "cannot be combined with calibration.dataset: give one of them"));
    }
    if datasets.is_empty() || datasets.len() > MOST_DATASETS {
        return Err(wrong("calibration.datasets", format!("must name 1 to {MOST_DATASETS} data sets")));
    }
    let mut parts: Vec<CalibrationPart> = Vec::with_capacity(datasets.len());
    for (index, part) in datasets.iter().enumerate() {
        let field = |name: &str| format!("calibration.datasets[{index}].{name}");
        let weight = part.weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(wrong(field("weight"), format!("{weight} is out of range: it must be positive")));
        }
        let dataset = parse(&field("dataset"), &part.dataset)?;
        let split = part.split.as_deref().map_or(Ok(split.clone()), |split| check_split(&field("split"), split))?;
        if parts.iter().any(|other| (&other.dataset, &other.split) == (&dataset, &split)) {
            return Err(wrong(field("dataset"), format!("names {dataset} ({split}) twice")));
        }
        parts.push(CalibrationPart { dataset, split, weight });
    }
    if let [only] = &mut parts[..] {
        // All of the windows, whatever it says: a spec has one form.
        only.weight = 1.0;
    }
    Ok(parts)
}

fn check_split(field: &str, split: &str) -> Result<String, SpecError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if split.is_empty() || split.len() > 64 || !split.chars().all(plain) {
        return Err(wrong(field, "must be a word such as train, validation or test"));
    }
    Ok(split.to_owned())
}

fn check_grasp(body: GraspBody) -> Result<Grasp, SpecError> {
    let size = check_size(&body)?;
    let filled = preset::fill(&body, check_layers(body.layers.clone())?, size);
    let grasp = Grasp {
        preset: filled.preset,
        method: filled.method,
        layers: filled.layers,
        layer_metric: body.layer_metric.unwrap_or(LayerMetric::BlockInfluence),
        size: filled.size,
        schedule: filled.schedule,
        score: filled.score,
        basis: filled.basis,
        allocation: filled.allocation,
        refine: filled.refine,
        sigma_split: body.sigma_split.unwrap_or(SigmaSplit::Both),
        projections: check_projections(body.projections)?,
    };
    preset::check_together(&grasp)?;
    Ok(grasp)
}

fn check_size(body: &GraspBody) -> Result<Option<Size>, SpecError> {
    let controls = [
        ("grasp.retain_ratio", body.retain_ratio),
        ("grasp.importance_threshold", body.importance_threshold),
        ("grasp.target_compression", body.target_compression),
    ];
    let given: Vec<_> = controls.iter().filter_map(|(field, value)| value.map(|value| (*field, value))).collect();
    let (field, share) = match given.as_slice() {
        [] => return Ok(None),
        [one] => *one,
        [(first, _), (second, _), ..] => {
            return Err(wrong(
                *second,
                format!(
                    "cannot be combined with {first}: give one of retain_ratio, importance_threshold and target_compression"
                ),
            ));
        }
    };
    let open = field == "grasp.target_compression";
    if !(share > 0.0 && (share < 1.0 || (share <= 1.0 && !open))) {
        let range = if open { "(0, 1)" } else { "(0, 1]" };
        return Err(wrong(field, format!("{share} is out of range: it must lie in {range}")));
    }
    Ok(Some(match field {
        "grasp.retain_ratio" => Size::RetainRatio(share),
        "grasp.importance_threshold" => Size::ImportanceThreshold(share),
        _ => Size::TargetCompression(share),
    }))
}

fn check_layers(body: Option<LayersBody>) -> Result<Option<Layers>, SpecError> {
    match body {
        None => Ok(None),
        Some(LayersBody::Word(LayersWord::All)) => Ok(Some(Layers::All)),
        Some(LayersBody::Count(count)) => {
            within("grasp.layers", count, 1, MOST_LAYERS).map(|count| Some(Layers::Count(count)))
        }
        Some(LayersBody::Explicit(mut indices)) => {
            let given = indices.len();
            indices.sort_unstable();
            indices.dedup();
            if indices.is_empty() {
                return Err(wrong(
                    "grasp.layers",
                    "names no layer: give a number of layers or a list such as [21, 22]",
                ));
            }
            if indices.len() != given {
                return Err(wrong("grasp.layers", "names a layer twice"));
            }
            if indices.iter().any(|&index| index >= MOST_LAYERS) {
                return Err(wrong("grasp.layers", format!("layer indices end below {MOST_LAYERS}")));
            }
            Ok(Some(Layers::Explicit(indices)))
        }
    }
}

fn check_projections(body: Option<Vec<Projection>>) -> Result<Vec<Projection>, SpecError> {
    let Some(mut projections) = body else { return Ok(Projection::ALL.to_vec()) };
    let given = projections.len();
    projections.sort_unstable();
    projections.dedup();
    if projections.is_empty() {
        return Err(wrong("grasp.projections", "is empty: leave it out for all seven"));
    }
    if projections.len() != given {
        return Err(wrong("grasp.projections", "names a projection twice"));
    }
    Ok(projections)
}

fn check_recovery(body: &RecoveryBody, grasp: &Grasp, kind: Kind) -> Result<Recovery, SpecError> {
    let recovery = recovery::check(body)?;
    if kind == Kind::Recover && recovery.keep_unrecovered {
        return Err(wrong(
            "recovery.keep_unrecovered",
            "has no meaning where grasp is null: that checkpoint is the model",
        ));
    }
    if grasp.method == Method::Remove && recovery.target == RecoveryTarget::RedundantLayers {
        let message = "the redundant layers are gone with method 'remove': set it to all_layers";
        return Err(wrong("recovery.target", message));
    }
    Ok(recovery)
}

fn check_metadata(metadata: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, SpecError> {
    if metadata.len() > 16 {
        return Err(wrong("metadata", format!("has {} entries: at most 16", metadata.len())));
    }
    for (key, value) in &metadata {
        if key.is_empty() || key.chars().count() > 64 {
            return Err(wrong("metadata", "keys have 1 to 64 characters"));
        }
        if value.chars().count() > 512 {
            return Err(wrong(format!("metadata.{key}"), "values have at most 512 characters"));
        }
    }
    Ok(metadata)
}

fn check_priority(priority: i64) -> Result<i64, SpecError> {
    if PRIORITIES.contains(&priority) {
        return Ok(priority);
    }
    let (least, most) = PRIORITIES.into_inner();
    Err(wrong("priority", format!("{priority} is out of range: from {least} to {most}")))
}

fn check_min_memory(body: &ShardSizeBody) -> Result<u64, SpecError> {
    let expected = || wrong("min_memory", "must be a positive number of bytes, or a size such as 40GB");
    body.bytes().filter(|bytes| *bytes > 0).ok_or_else(expected)
}

/// Whether the address may be called shows when it is resolved; here only what no service would call is refused.
fn check_webhook_url(url: String) -> Result<String, SpecError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let plain = url.len() <= LONGEST_URL && url.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.contains('@') || !plain {
        return Err(wrong(
            "webhook_url",
            "must be a URL such as https://example.org/hook, without a user or a password",
        ));
    }
    Ok(url)
}
