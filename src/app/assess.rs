//! Scores of one model, without a server.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use super::one_shot::{Drawn, OneShotError};
use crate::{
    cli::Bar,
    job::{JobSpec, Report},
    pipeline,
};

/// Runs an evaluation; answers given so far are kept in `work`, where one is named.
///
/// # Errors
/// [`OneShotError`].
pub(super) fn assess(
    spec: &JobSpec,
    settings: &pipeline::Settings,
    work: Option<&Path>,
    cancelled: Arc<AtomicBool>,
) -> Result<Report, OneShotError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| OneShotError::Folder { path, source }
    };
    let temporary = tempfile::tempdir().map_err(error(Path::new("a temporary folder")))?;
    let work: PathBuf = work.map_or_else(|| temporary.path().join("work"), Path::to_owned);
    let output = temporary.path().join("output");
    for folder in [&work, &output] {
        fs::create_dir_all(folder).map_err(error(folder))?;
    }
    let observer = Drawn { bar: Bar::default(), cancelled };
    let context = pipeline::Context { work: &work, output: &output, settings, observer: &observer };
    let result = pipeline::run(spec, &context);
    observer.bar.end();
    result.map_err(|error| error.failure().map_or(OneShotError::Cancelled, OneShotError::Failed))
}
