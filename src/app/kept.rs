//! Everything that is kept, opened: on this machine alone, or where all machines find it.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

use crate::{
    artifact::{ArtifactError, ArtifactStore, Bucket, Depot, DiskStore, Inputs, ObjectArtifacts, Row, Rows},
    config::{Machine, Objects},
    job::{JobId, JobSpec, ModelSource, UPLOADS},
    queue::Store,
    worker::Elsewhere,
};

/// The published folders, and what else is shared with other machines.
pub(super) struct Kept {
    pub(super) artifacts: Arc<dyn ArtifactStore>,
    pub(super) elsewhere: Option<Elsewhere>,
}

impl Kept {
    pub(super) fn open(
        machine: &Machine,
        objects: Option<&Objects>,
        store: &Arc<dyn Store>,
    ) -> Result<Self, ArtifactError> {
        let Some(Objects { url, options }) = objects else {
            return Ok(Self { artifacts: Arc::new(DiskStore::open(&machine.data_dir)?), elsewhere: None });
        };
        let bucket = Bucket::open(url, options)?;
        let rows = Arc::new(RowsOf(Arc::clone(store)));
        let artifacts: Arc<dyn ArtifactStore> =
            Arc::new(ObjectArtifacts::open(bucket.clone(), rows, &machine.data_dir)?);
        let depot = Depot::new(bucket);
        let inputs = InputsOf {
            store: Arc::clone(store),
            artifacts: Arc::clone(&artifacts),
            depot: depot.clone(),
            folder: machine.datasets_dir.join(UPLOADS),
        };
        Ok(Self { artifacts, elsewhere: Some(Elsewhere { depot, inputs: Arc::new(inputs) }) })
    }
}

/// What the database says of jobs.
pub(super) struct RowsOf(pub(super) Arc<dyn Store>);

#[async_trait]
impl Rows for RowsOf {
    async fn row(&self, job: JobId) -> Result<Option<Row>, String> {
        let record = self.0.get(job).await.map_err(|error| error.to_string())?;
        Ok(record.map(|record| Row { status: record.status, attempt: record.attempt }))
    }
}

struct InputsOf {
    store: Arc<dyn Store>,
    artifacts: Arc<dyn ArtifactStore>,
    depot: Depot,
    /// Uploaded texts on this machine.
    folder: PathBuf,
}

#[async_trait]
impl Inputs for InputsOf {
    async fn bring(&self, spec: &JobSpec) -> Result<(), ArtifactError> {
        for (_, id) in spec.uploaded() {
            // One that was deleted is missing to the job, which says so.
            let found = self.store.dataset(&id).await.map_err(|error| ArtifactError::Rows(error.to_string()))?;
            if let Some(text) = found {
                let name = format!("{id}.{}", text.format.as_str());
                self.depot.bring_text(&name, &text.sha256, &self.folder).await?;
            }
        }
        match &spec.model {
            ModelSource::Job(id) => self.artifacts.bring(*id).await,
            _ => Ok(()),
        }
    }
}
