//! `graspd sweep`: one job after the other in one work folder, so that each goes on from what it has in common with those
//! before it.

use std::{fs, path::Path};

use super::{
    AppError,
    one_shot::{Drawn, OneShotError},
    signals,
};
use crate::{
    cli::{self, Bar, SUCCEEDED, sweep::Row},
    job::Report,
    pipeline,
};

/// Runs the sweep that `arguments` name; the table is printed and left in the folder `--out`.
pub(super) fn sweep(arguments: &cli::sweep::Arguments, settings: &pipeline::Settings) -> Result<u8, AppError> {
    let out = &arguments.job.out;
    let jobs = arguments.jobs()?;
    fs::create_dir_all(out)?;
    let folder = tempfile::Builder::new().prefix(".sweep-").tempdir_in(out)?;
    let observer = Drawn { bar: Bar::default(), cancelled: signals::flag()? };
    let mut rows: Vec<Row<Report>> = Vec::new();
    for job in jobs {
        let (work, output) = (folder.path().join("work"), folder.path().join("output"));
        fs::create_dir_all(&output)?;
        let context = pipeline::Context { work: &work, output: &output, settings, observer: &observer };
        let result = pipeline::run(&job.what, &context);
        observer.bar.end();
        let report = result.map_err(|error| error.failure().map_or(OneShotError::Cancelled, OneShotError::Failed))?;
        rows.push(Row { setting: job.setting, size: job.size, what: report });
        fs::remove_dir_all(&output)?;
        // After every row, so that a long sweep leaves something when it is stopped.
        write(out, &rows)?;
    }
    let text = match arguments.job.json {
        true => format!("{}\n", serde_json::to_string_pretty(&rows)?),
        false => cli::sweep::table(&rows),
    };
    cli::print(&text)?;
    Ok(SUCCEEDED)
}

fn write(out: &Path, rows: &[Row<Report>]) -> Result<(), AppError> {
    fs::write(out.join("sweep.md"), cli::sweep::table(rows))?;
    fs::write(out.join("sweep.json"), serde_json::to_string_pretty(rows)? + "\n")?;
    Ok(())
}
