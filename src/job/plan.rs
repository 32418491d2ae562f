use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ByteCounts, FailureCode, JobSpec, ParameterCounts, spec::Projection};

/// What the method can do and what a job would take. The service's front asks it; the method answers.
pub trait Planner: Send + Sync {
    /// Looks at a job's model, without starting anything. It may read files, so it may block.
    fn plan(&self, spec: &JobSpec) -> Plan;
    /// What this service can do.
    fn capabilities(&self) -> Capabilities;
}

/// What a job would do and take, before anything is started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The architecture in the model's config.json; null where the model is neither on this machine nor told by the hub.
    pub architecture: Option<String>,
    /// The layers that will be compressed or removed; null where they are only known once they are measured.
    pub layers: Option<Vec<usize>>,
    /// How many layers that are.
    pub layer_count: Option<usize>,
    /// The matrices of one such layer; all of them look the same.
    pub matrices: Vec<PlannedMatrix>,
    /// Parameters of the whole model.
    pub parameters: Option<ParameterCounts>,
    /// Bytes of its safetensors files.
    pub bytes: Option<ByteCounts>,
    /// Memory of the worker process at its largest.
    pub memory_bytes: Option<u64>,
    /// Disk that the published folder and the checkpoints on the way take.
    pub disk_bytes: Option<u64>,
    /// Wall time, roughly: from the number of operations, at a usual pace of this device.
    pub seconds: Option<f64>,
    /// Why the job would fail; empty when nothing stands against it.
    pub refusals: Vec<Refusal>,
    /// Anything a reader should know.
    pub notes: Vec<String>,
}

/// What would become of a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMatrix {
    /// Which one.
    pub projection: Projection,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Singular triplets kept; null where it stays dense, or where the rank is only known once scores are.
    pub rank: Option<usize>,
}

/// Why a job would fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// The code the job would end with.
    pub code: FailureCode,
    /// What is wrong and what to do.
    pub message: String,
}

/// What this service can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// Architectures, as a model's config.json names them.
    pub architectures: Vec<String>,
    /// Values of `grasp.preset`.
    pub presets: Vec<String>,
    /// Values of `grasp.method`.
    pub methods: Vec<String>,
    /// Values of `grasp.layer_metric`.
    pub layer_metrics: Vec<String>,
    /// Values of `grasp.schedule`.
    pub schedules: Vec<String>,
    /// Values of `grasp.score`.
    pub scores: Vec<String>,
    /// Values of `grasp.basis`.
    pub bases: Vec<String>,
    /// Values of `grasp.allocation`.
    pub allocations: Vec<String>,
    /// Values of `grasp.refine`.
    pub refinements: Vec<String>,
    /// Values of `grasp.projections`.
    pub projections: Vec<String>,
    /// Data sets known by name.
    pub datasets: Vec<String>,
    /// Models and texts of this machine, as a job names them.
    pub models: Vec<String>,
    /// Devices jobs run on.
    pub devices: Vec<String>,
}
