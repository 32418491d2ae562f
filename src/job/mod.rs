//! The words of the service: what a job is, what it is asked to do, how far it is, how it ended.
//!
//! Pure data. Nothing here waits, opens a file or knows a framework; every other layer may import it.

mod dataset;
mod event;
mod failure;
mod id;
mod plan;
mod progress;
mod publication;
mod report;
mod scope;
mod scores;
mod source;
pub mod spec;
mod task;

pub use dataset::{DatasetId, TextFormat};
pub use event::EventKind;
pub use failure::{Decision, Failure, FailureCode};
pub use id::{InvalidJobId, JobId};
pub use plan::{Capabilities, Plan, PlannedMatrix, Planner, Refusal};
pub use progress::{Progress, Stage, Status, Training};
pub use publication::{
    Publication, PublicationBody, PublicationOrder, PublicationRefusal, PublicationStatus, Publisher, Token,
};
pub use report::{
    AverageReport, AverageScores, ByteCounts, CheckpointReport, EvaluationReport, HeldOutReport, LayerReport,
    MatrixReport, ModelReport, ParameterCounts, PerplexityReport, RecoveryReport, RemovedShares, Report, StageSeconds,
    TaskReport, TaskScores, TrainingPoint, ValidationPoint,
};
pub use scope::Scope;
pub use scores::{GenerationReport, GenerationScores, InferenceFigures, InferenceReport, RollingReport, RollingScores};
pub use source::{DatasetName, ModelSource, UPLOADS};
pub use spec::{JobSpec, SpecError};
pub use task::{AnyTask, GenerationTask, RollingTask, TaskName};
