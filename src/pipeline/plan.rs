//! What a job would do and take, from a model's configuration and the heads of its weight files: nothing is computed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Error, Model, Settings,
    budget::{Keep, LayerBudget, rank, stays_dense},
};
use crate::{
    checkpoint::{self, HubSettings, Snapshot, outline_model},
    job::{
        ByteCounts, JobSpec, ModelSource, ParameterCounts, Plan, PlannedMatrix, Refusal,
        spec::{Kind, Method, Refine, Schedule},
    },
};

/// Operations a second of one core at the matrix products of a pass, from the project's own measurements.
const PACE_PER_CORE: f64 = 75e9;
/// Tokens of a usual test split, for a job that scores all of one.
const USUAL_TEST_TOKENS: f64 = 300_000.0;
/// How long a plan waits for the hub.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before the first retry of a request to the hub: somebody waits.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// What a process takes beyond its weights, gradients and states, as a factor; measured.
const OVERHEAD: f64 = 1.5;

/// Plans a job. Of a model of the hub that is not in the cache, the configuration and the heads of its weight files are
/// fetched, which is little.
pub fn plan(spec: &JobSpec, settings: &Settings) -> Plan {
    plan_model(spec, settings).unwrap_or_else(|error| Plan {
        refusals: error.failure().map(refusal).into_iter().collect(),
        ..Plan::default()
    })
}

fn refusal(failure: crate::job::Failure) -> Refusal {
    Refusal { code: failure.code, message: failure.message }
}

fn plan_model(spec: &JobSpec, settings: &Settings) -> Result<Plan, Error> {
    match (find(spec, settings), &spec.model) {
        (Err(_), ModelSource::Hub { repository, revision }) if !settings.hub.offline => {
            plan_outline(spec, repository, revision.as_deref(), &settings.hub)
        }
        (found, _) => plan_for(spec, &Model::read(found?)?),
    }
}

/// The model's files, where they are on this machine.
fn find(spec: &JobSpec, settings: &Settings) -> Result<Snapshot, Error> {
    let hub = HubSettings { offline: true, ..settings.hub.clone() };
    Ok(checkpoint::resolve(&spec.model, &settings.models_dir, &settings.published_dir, &hub, &mut |_, _, _| true)?)
}

fn plan_outline(spec: &JobSpec, repository: &str, revision: Option<&str>, hub: &HubSettings) -> Result<Plan, Error> {
    let folder = tempfile::tempdir().map_err(checkpoint::Error::io(Path::new("a temporary folder")))?;
    let settings = HubSettings { retry_delay: hub.retry_delay.min(RETRY_DELAY), ..hub.clone() };
    let began = Instant::now();
    let mut patient = |_: u64, _: u64, _: &str| began.elapsed() < PATIENCE;
    match outline_model(repository, revision, &settings, folder.path(), &mut patient) {
        Ok(outline) => {
            let mut plan = plan_for(spec, &Model::read(outline)?)?;
            plan.notes.push("the model is not on this machine yet: a job fetches it first".to_owned());
            Ok(plan)
        }
        Err(checkpoint::Error::HubUnavailable(reason)) => Ok(unknown(&reason)),
        Err(checkpoint::Error::Cancelled) => {
            Ok(unknown(&format!("{} did not answer within {} s", hub.endpoint, PATIENCE.as_secs())))
        }
        Err(error) => Err(error.into()),
    }
}

/// The hub may be there again when the job runs, so this is no refusal.
fn unknown(reason: &str) -> Plan {
    Plan {
        notes: vec![format!("the model is not on this machine, and its sizes are not known: {reason}")],
        ..Plan::default()
    }
}

/// A job that only trains or only scores: every size stays as it is.
fn plan_as_it_is(spec: &JobSpec, model: &Model) -> Result<Plan, Error> {
    let trained = spec.recovery.as_ref().map(|recovery| model.factored_layers(recovery)).transpose()?;
    let bytes = model.weights.file_bytes()?;
    let written = if trained.is_some() { 2 * bytes } else { 0 };
    Ok(Plan {
        architecture: Some(model.config.architecture.clone()),
        parameters: Some(ParameterCounts { before: model.parameters, after: model.parameters }),
        bytes: Some(ByteCounts { before: bytes, after: bytes }),
        memory_bytes: Some(memory(spec, model, 0)),
        disk_bytes: Some(written),
        notes: vec!["nothing is compressed; memory and disk are estimates".to_owned()],
        ..Plan::default()
    })
}

fn plan_for(spec: &JobSpec, model: &Model) -> Result<Plan, Error> {
    if spec.kind != Kind::Compress {
        return plan_as_it_is(spec, model);
    }
    let (budget, keep) = model.budget(spec)?;
    let (layers, count) = match budget {
        LayerBudget::Count(count, _) => (None, count),
        LayerBudget::Explicit(layers) => {
            let count = layers.len();
            (Some(layers), count)
        }
    };
    let matrices = match spec.grasp.method {
        Method::Grasp => matrices(spec, model, keep),
        Method::Remove => Vec::new(),
    };
    let before = model.parameters;
    let bytes = model.weights.file_bytes()?;
    let chosen: u64 = matrices.iter().map(|matrix| elements(matrix.shape)).sum::<u64>() * count as u64;
    let removed = match (spec.grasp.method, keep) {
        (Method::Grasp, Keep::Budget(budget)) => chosen.saturating_sub(budget),
        _ => removed(spec, model, &matrices, count),
    };
    let after = before.saturating_sub(removed);
    let bytes_after = (bytes as f64 * after as f64 / before.max(1) as f64) as u64;
    let mut notes = vec!["memory, disk and seconds are estimates".to_owned()];
    if matches!(keep, Keep::Threshold(_)) {
        notes.push(
            "with importance_threshold the ranks follow from the scores: sizes after are not known yet".to_owned(),
        );
    }
    if matches!(keep, Keep::Budget(_)) {
        notes.push("one budget for all matrices: their ranks follow from the scores".to_owned());
    }
    let known = !matches!(keep, Keep::Threshold(_)) || spec.grasp.method == Method::Remove;
    Ok(Plan {
        architecture: Some(model.config.architecture.clone()),
        layers,
        layer_count: Some(count),
        matrices,
        parameters: known.then_some(ParameterCounts { before, after }),
        bytes: known.then_some(ByteCounts { before: bytes, after: bytes_after }),
        memory_bytes: Some(memory(spec, model, chosen)),
        disk_bytes: Some(bytes_after + 8 * chosen),
        seconds: Some(seconds(spec, model, count, chosen)),
        refusals: Vec::new(),
        notes,
    })
}

const fn elements([out, input]: [usize; 2]) -> u64 {
    (out * input) as u64
}

fn matrices(spec: &JobSpec, model: &Model, keep: Keep) -> Vec<PlannedMatrix> {
    let planned = |&projection| {
        let shape = model.config.projection_shape(projection);
        let rank = match keep {
            Keep::Ratio(ratio) => Some(rank(ratio, shape)).filter(|&rank| !stays_dense(rank, shape)),
            Keep::Threshold(_) | Keep::Budget(_) => None,
        };
        PlannedMatrix { projection, shape, rank }
    };
    spec.grasp.projections.iter().map(planned).collect()
}

/// Parameters that go, in all layers.
fn removed(spec: &JobSpec, model: &Model, matrices: &[PlannedMatrix], count: usize) -> u64 {
    let of_layer = match spec.grasp.method {
        Method::Remove => model.parameters_of_layer(),
        Method::Grasp => matrices.iter().map(saved).sum(),
    };
    of_layer * count as u64
}

fn saved(matrix: &PlannedMatrix) -> u64 {
    let [out, input] = matrix.shape;
    matrix.rank.map_or(0, |rank| elements(matrix.shape).saturating_sub((rank * (out + input)) as u64))
}

/// Weights in f32, three numbers of working space for each number of the chosen matrices, and the hidden states.
fn memory(spec: &JobSpec, model: &Model, chosen: u64) -> u64 {
    let states = (spec.calibration.samples * spec.calibration.sequence_length * model.config.hidden_size) as f64;
    (OVERHEAD * 4.0 * (model.parameters as f64 + 3.0 * chosen as f64 + states)) as u64
}

/// Two operations a parameter and token forward, five more backward, seven for both models and their sums in a
/// refinement; a decomposition takes about twenty-two times the smaller side for each number of a matrix.
fn seconds(spec: &JobSpec, model: &Model, count: usize, chosen: u64) -> f64 {
    let parameters = model.parameters as f64;
    let calibration = &spec.calibration;
    let tokens = (calibration.samples * calibration.sequence_length) as f64;
    let gradients = match (spec.grasp.method, spec.grasp.schedule) {
        (Method::Remove, _) => 0.0,
        (Method::Grasp, Schedule::OneShot) => 7.0,
        (Method::Grasp, Schedule::Iterative) => 7.0 * count as f64,
    };
    let refined = match spec.grasp.refine {
        Refine::None => 0.0,
        Refine::Sequential => 7.0,
    };
    let scored = spec.evaluation.as_ref().map_or(0.0, |evaluation| {
        let of_one = evaluation.limit.map_or(USUAL_TEST_TOKENS, |limit| (limit * evaluation.window) as f64);
        of_one * evaluation.perplexity.len() as f64 * if evaluation.compare_dense { 2.0 } else { 1.0 }
    });
    let decompositions = 22.0 * chosen as f64 * model.config.hidden_size as f64;
    let operations = parameters * (tokens * (2.0 + gradients + refined) + 2.0 * scored) + decompositions;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    operations / (PACE_PER_CORE * cores)
}
