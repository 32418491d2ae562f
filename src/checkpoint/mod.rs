//! Model files: where they come from, what is in them, and how they are written.

mod checksums;
mod companions;
mod error;
mod hub;
mod local;
mod published;
mod weights;
mod writer;

use std::path::{Path, PathBuf};

pub use checksums::{CHECKSUMS_FILE, checksums_hold, write_checksums};
pub use companions::{CARD, COMPANIONS};
pub use error::Error;
pub use hub::{
    HubSettings, ObserveDownload, Upload, UploadFile, Uploaded, fetch_dataset_file, fetch_model, outline_model, upload,
};
pub use local::{find_below, resolve_local};
pub use published::resolve_published;
pub use weights::{TensorEntry, Weights, narrow, round_to};
pub use writer::{Pending, write_safetensors};

use crate::job::ModelSource;

/// A model's files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// The commit, for a model from the hub.
    pub revision: Option<String>,
}

/// Finds a model's files, fetching them from the hub where they come from there.
///
/// # Errors
/// As [`fetch_model`] and [`resolve_local`]; [`Error::NotFound`] when a job has published no checkpoint.
pub fn resolve(
    source: &ModelSource,
    models_dir: &Path,
    published_dir: &Path,
    hub: &HubSettings,
    observe: ObserveDownload<'_>,
) -> Result<Snapshot, Error> {
    match source {
        ModelSource::Local { name } => resolve_local(models_dir, name),
        ModelSource::Job(id) => resolve_published(published_dir, *id),
        ModelSource::Hub { repository, revision } => fetch_model(repository, revision.as_deref(), hub, observe),
    }
}
