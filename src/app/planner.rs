//! What the service's front asks of the method.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Serialize;

use crate::{
    job::{
        Capabilities, JobSpec, Plan, Planner,
        spec::{Allocation, Basis, LayerMetric, Method, Preset, Projection, Refine, Schedule, Score},
    },
    model,
    pipeline::{self, Settings},
};

/// Data sets known by name.
const DATASETS: [&str; 3] = ["wikitext2", "ptb", "c4"];
/// How deep models lie below their folder.
const DEPTH: usize = 3;

/// The method, as the service's front sees it.
pub struct TheMethod {
    /// This machine.
    pub settings: Settings,
    /// Devices jobs run on.
    pub devices: Vec<String>,
}

/// The names of an enum's values in the API.
fn names<T: Serialize>(values: &[T]) -> Vec<String> {
    let name = |value: &T| serde_json::to_value(value).ok()?.as_str().map(str::to_owned);
    values.iter().filter_map(name).collect()
}

impl Planner for TheMethod {
    fn plan(&self, spec: &JobSpec) -> Plan {
        pipeline::plan(spec, &self.settings)
    }

    fn capabilities(&self) -> Capabilities {
        let texts = names_below(&self.settings.datasets_dir, "file:");
        Capabilities {
            architectures: model::ARCHITECTURES.map(str::to_owned).to_vec(),
            presets: names(Preset::ALL),
            methods: names(Method::ALL),
            layer_metrics: names(LayerMetric::ALL),
            schedules: names(Schedule::ALL),
            scores: names(Score::ALL),
            bases: names(Basis::ALL),
            allocations: names(Allocation::ALL),
            refinements: names(Refine::ALL),
            projections: names(&Projection::ALL),
            datasets: DATASETS.map(str::to_owned).into_iter().chain(texts).collect(),
            models: models_below(&self.settings.models_dir),
            devices: self.devices.clone(),
        }
    }
}

/// Texts that lie in a folder, as a job names them.
fn names_below(folder: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let plain = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
        (!name.starts_with('.') && !DATASETS.contains(&plain.as_str())).then(|| format!("{prefix}{plain}"))
    };
    let found: BTreeSet<String> = entries.filter_map(|entry| name(entry.ok()?)).collect();
    found.into_iter().collect()
}

/// Model folders, as a job names them.
fn models_below(folder: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    walk(folder, "", DEPTH, &mut found);
    found.into_iter().collect()
}

fn walk(folder: &Path, name: &str, depth: usize, found: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        let Ok(part) = entry.file_name().into_string() else { continue };
        let name = if name.is_empty() { part } else { format!("{name}/{part}") };
        if entry.path().join("config.json").is_file() {
            found.insert(format!("file:{name}"));
        } else {
            walk(&entry.path(), &name, depth - 1, found);
        }
    }
}
