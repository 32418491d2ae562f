//! Solved examples before a question, drawn as lm-eval's default sampler draws them.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::Path,
};

use serde_json::Value;

use super::{
    datasets::{load_local_records, load_records},
    random::PythonRandom,
    tasks,
};
use crate::{
    checkpoint::{Error, HubSettings},
    job::TaskName,
};

/// lm-eval's seed of the few-shot sampler.
const SEED: u32 = 1234;
const SPLIT: &str = "train";
const SEPARATOR: &str = "\n\n";

/// Tells equal records from different ones.
pub(super) fn fingerprint(record: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.to_string().hash(&mut hasher);
    hasher.finish()
}

/// A solved question, and the fingerprint of its record.
type Example = (u64, String);

/// Where the examples of a task come from. One stream of random numbers goes through all its documents.
pub(super) struct FewShot {
    pool: Vec<Example>,
    /// The split they come from.
    pub(super) split: &'static str,
    random: PythonRandom,
    shots: usize,
    /// Examples drawn for a document: one more where it may be among them.
    drawn: usize,
}

impl FewShot {
    /// The train split, where it lies beside the evaluated one; else the evaluated split itself.
    ///
    /// # Errors
    /// [`Error::InvalidDataset`] when there are too few examples.
    pub(super) fn prepare(
        task: TaskName,
        shots: usize,
        is_local: bool,
        datasets_dir: &Path,
        hub: &HubSettings,
    ) -> Result<Self, Error> {
        let mut pool = Vec::new();
        let mut take = |record: Value| {
            let fingerprint = fingerprint(&record);
            let example = tasks::question(task, record)?.example();
            pool.push((fingerprint, example.ok_or("names a right choice that is not there")?));
            Ok(())
        };
        let (mut split, mut drawn) = (SPLIT, shots);
        let has_train = match is_local {
            true => load_local_records(task.into(), SPLIT, datasets_dir, &mut take)?,
            false => load_records(task.into(), SPLIT, datasets_dir, hub, &mut take).map(|_| true)?,
        };
        if !has_train {
            split = tasks::split(task);
            load_records(task.into(), split, datasets_dir, hub, &mut take)?;
        }
        // lm-eval takes a task without a test split for one whose examples come from the evaluated split.
        if !has_train || !tasks::has_test_split(task) {
            drawn += 1;
        }
        if pool.len() < drawn {
            let found = pool.len();
            return Err(Error::InvalidDataset(format!(
                "evaluation.num_fewshot: {task} ({split}) has only {found} documents, {drawn} are needed"
            )));
        }
        Ok(Self { pool, split, random: PythonRandom::new(SEED), shots, drawn })
    }

    /// The examples before the next document, which is not among them.
    pub(super) fn next(&mut self, document: u64) -> String {
        let drawn = self.random.sample(self.pool.len(), self.drawn).unwrap_or_default();
        let others = drawn.into_iter().map(|index| &self.pool[index]).filter(|(record, _)| *record != document);
        others.take(self.shots).flat_map(|(_, example)| [example.as_str(), SEPARATOR]).collect()
    }
}
