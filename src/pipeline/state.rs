//! What a job has finished, in its work folder: `state.json`, and the folders it names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{
    Context, Error, compress,
    durable::{self, is_sound, read_sealed, to_json, write_sealed},
    influence::Influence,
    refine,
};
use crate::{
    checkpoint,
    eval::Perplexity,
    job::{
        InferenceFigures, JobSpec, Stage, StageSeconds,
        spec::{Allocation, EvaluationBody, Grasp, Layers, Size},
    },
};

const FILE: &str = "state.json";

/// Everything an attempt must know of the attempts before it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Finished {
    /// What the rest belongs to: the spec and the model's commit.
    pub(super) fingerprint: String,
    /// What the layer choice, the sums and the decompositions belong to: all that does not depend on the size.
    #[serde(default)]
    pub(super) statistics: String,
    /// What the scores of the source belong to.
    #[serde(default)]
    pub(super) scored: String,
    /// Wall time by stage.
    pub(super) seconds: IndexMap<Stage, f64>,
    /// Layer choice, once it is made.
    pub(super) influence: Option<Influence>,
    /// Scores of the source, by data set.
    pub(super) dense: IndexMap<String, Perplexity>,
    /// Whether the gradients of all chosen matrices are on disk.
    pub(super) gradients: bool,
    /// Names of the pieces whose factors are on disk.
    pub(super) pieces: Vec<String>,
    /// Scores of the compressed model before recovery, by data set.
    #[serde(default)]
    pub(super) compressed: IndexMap<String, Perplexity>,
    /// Losses of what recovery keeps back, by the model's state.
    #[serde(default)]
    pub(super) held_out: IndexMap<String, f64>,
    /// Names of the folders with the training as it stands and as it stood the time before, oldest first.
    #[serde(default)]
    pub(super) recovery: Vec<String>,
    /// Speed and memory of generation, by the model's state.
    #[serde(default)]
    pub(super) inference: IndexMap<String, InferenceFigures>,
    /// Highest resident set size of the attempts before.
    pub(super) peak_rss_bytes: u64,
}

impl Finished {
    /// Nothing yet of a job.
    fn of(spec: &JobSpec, revision: Option<&str>) -> Result<Self, Error> {
        let source = format!("{} {} {revision:?}", env!("CARGO_PKG_VERSION"), spec.model);
        // The layers follow from the size unless they are all or named, and what is kept of each unless it is one budget.
        let grasp = &spec.grasp;
        let for_any_size =
            grasp.allocation == Allocation::Global && matches!(grasp.layers, Layers::All | Layers::Explicit(_));
        let size = if for_any_size { Size::RetainRatio(1.0) } else { grasp.size };
        let statistics = JobSpec {
            grasp: Grasp { size, ..grasp.clone() },
            evaluation: None,
            recovery: None,
            metadata: BTreeMap::new(),
            webhook_url: None,
            priority: 0,
            min_memory: None,
            ..spec.clone()
        };
        Ok(Self {
            fingerprint: format!("{} {} {revision:?}", env!("CARGO_PKG_VERSION"), to_json(spec)?),
            statistics: format!("{source} {}", to_json(&statistics)?),
            scored: format!("{source} {}", to_json(&spec.evaluation.as_ref().map(EvaluationBody::from))?),
            ..Self::default()
        })
    }

    /// Takes out what is not on disk as it was written: it is made again.
    fn without_damage(mut self, folder: &Path) -> Self {
        self.pieces.retain(|name| is_sound(&folder.join(name)));
        self.recovery.retain(|name| is_sound(&folder.join(name)));
        self.gradients = self.gradients && is_sound(&folder.join(compress::SUMS));
        self
    }

    /// Keeps what a job before this one in the same folder did for both.
    fn carry_over(self, left: Self) -> Self {
        let dense = if left.scored == self.scored { left.dense } else { IndexMap::new() };
        if left.statistics != self.statistics {
            return Self { dense, ..self };
        }
        let pieces = left.pieces.into_iter().filter(|name| !refine::is_refined(name)).collect();
        Self { dense, pieces, influence: left.influence, gradients: left.gradients, ..self }
    }
}

/// The work folder of a job.
pub(super) struct State {
    folder: PathBuf,
    /// What is finished; [`State::save`] after each change.
    pub(super) finished: Finished,
}

impl State {
    /// Reads the state another attempt left, or begins anew when there is none for this fingerprint.
    pub(super) fn open(folder: &Path, spec: &JobSpec, revision: Option<&str>) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(checkpoint::Error::io(folder))?;
        let new = Finished::of(spec, revision)?;
        let left = read_sealed::<Finished>(&folder.join(FILE));
        let finished = match left.map(|left| left.without_damage(folder)) {
            Some(left) if left.fingerprint == new.fingerprint => left,
            Some(left) => new.carry_over(left),
            None => new,
        };
        Ok(Self { folder: folder.to_owned(), finished })
    }

    /// Puts the state on disk: all of it or what was there before.
    pub(super) fn save(&self) -> Result<(), Error> {
        write_sealed(&self.folder.join(FILE), &self.finished)
    }

    /// Runs a stage and adds its time to the job's account.
    pub(super) fn timed<T>(
        &mut self,
        stage: Stage,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = work(self);
        *self.finished.seconds.entry(stage).or_default() += start.elapsed().as_secs_f64();
        self.finished.peak_rss_bytes = self.finished.peak_rss_bytes.max(peak_rss_bytes());
        self.save()?;
        result
    }

    /// Marks a step finished, on disk and to the watcher.
    pub(super) fn step(&self, context: &Context<'_>) -> Result<(), Error> {
        self.save()?;
        context.observer.step_finished();
        Ok(())
    }

    /// A place in the work folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Fills a folder and puts it in its place, whole.
    pub(super) fn write_folder(&self, name: &str, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        durable::write_folder(&self.path(name), fill)
    }

    /// The report's account of time.
    pub(super) fn stages(&self) -> Vec<StageSeconds> {
        self.finished.seconds.iter().map(|(&stage, &seconds)| StageSeconds { stage, seconds }).collect()
    }
}

/// The highest resident set size of this process so far; 0 where the system does not tell.
pub(super) fn peak_rss_bytes() -> u64 {
    of_status("VmHWM:")
}

/// Its resident set size now.
pub(super) fn resident_bytes() -> u64 {
    of_status("VmRSS:")
}

fn of_status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0) * 1024
}
