use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use candle_core::Device;
use graspd::{
    checkpoint::HubSettings,
    job::{JobSpec, Progress, Report},
    model::{Place, Residency},
    pipeline::{Context, Error, Observer, Settings, run},
};
use serde_json::Value;

/// The folder with the models and texts that ship with the project.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn settings(models_dir: &Path, memory_limit: u64) -> Settings {
    Settings {
        models_dir: models_dir.to_owned(),
        published_dir: models_dir.join("published"),
        datasets_dir: fixtures().join("text"),
        hub: HubSettings {
            endpoint: "http://127.0.0.1:9".into(),
            cache_dir: "/nonexistent".into(),
            token: None,
            offline: true,
            retry_delay: Duration::ZERO,
        },
        device: "cpu".into(),
        memory_limit,
    }
}

/// A decoder with all layers in memory, on the CPU.
pub(crate) fn in_memory() -> Place<'static> {
    Place { device: &Device::Cpu, residency: Residency::Resident, scratch: Path::new("") }
}

/// Remembers what it saw; cancels after a number of finished steps where it is told to.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) seen: Mutex<Vec<Progress>>,
    pub(crate) steps: Mutex<usize>,
    pub(crate) cancel_after: Option<usize>,
}

impl Observer for Watcher {
    fn progress(&self, progress: Progress) {
        self.seen.lock().unwrap().push(progress);
    }

    fn step_finished(&self) {
        *self.steps.lock().unwrap() += 1;
    }

    fn is_cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|most| *self.steps.lock().unwrap() >= most)
    }
}

/// A job with folders of its own.
pub(crate) struct Job {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) spec: JobSpec,
    pub(crate) models_dir: PathBuf,
    pub(crate) memory_limit: u64,
    pub(crate) datasets_dir: PathBuf,
}

impl Job {
    pub(crate) fn new(spec: &Value) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            spec: JobSpec::parse(spec).unwrap(),
            models_dir: fixtures(),
            memory_limit: 8 << 30,
            datasets_dir: fixtures().join("text"),
        }
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    /// Runs an attempt into an empty output folder.
    pub(crate) fn attempt(&self, watcher: &Watcher) -> Result<Report, Error> {
        let output = self.output();
        let _ = std::fs::remove_dir_all(&output);
        std::fs::create_dir_all(&output).unwrap();
        let settings =
            Settings { datasets_dir: self.datasets_dir.clone(), ..settings(&self.models_dir, self.memory_limit) };
        run(
            &self.spec,
            &Context {
                work: &self.folder.path().join("work"),
                output: &output,
                settings: &settings,
                observer: watcher,
            },
        )
    }

    pub(crate) fn run(&self) -> Report {
        self.attempt(&Watcher::default()).unwrap()
    }

    /// Runs it with a stop after every step; three attempts at least.
    pub(crate) fn run_in_pieces(&self) -> Report {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(&Watcher { cancel_after: Some(1), ..Watcher::default() }) {
                Err(Error::Cancelled) => {}
                ended => {
                    assert!(attempts > 2, "{attempts}");
                    return ended.unwrap();
                }
            }
        }
    }

    pub(crate) fn singular_values(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.output().join("singular_values.json")).unwrap()).unwrap()
    }
}
