//! Stage 6: the compressed checkpoint as a folder that transformers loads: weights, configuration, the Python files of
//! the factored classes, tokenizer files byte for byte, and a model card. With two formats, each is a folder of its own.

mod card;
mod config;
mod names;
mod preview;
mod tensors;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::Dtype;
use serde_json::Value;

pub(super) use self::{card::write_cards, preview::install_as_exported};
use self::{config::config, tensors::tensors};
use super::{Error, factorize::FactorNumbers};
use crate::{
    checkpoint::{self, COMPANIONS, Weights, write_safetensors},
    job::{
        CheckpointReport,
        spec::{Export, ExportFormat, ExportType},
    },
    model::factor_names,
};

/// The Python files of a factored checkpoint, which transformers takes with `trust_remote_code`.
const PYTHON: [(&str, &str); 2] = [
    ("configuration_grasp.py", include_str!("python/configuration_grasp.py")),
    ("modeling_grasp.py", include_str!("python/modeling_grasp.py")),
];

/// What changes between source and checkpoint.
pub(super) struct Changes {
    /// New factors by module name.
    pub(super) factors: BTreeMap<String, Arc<FactorNumbers>>,
    /// Layers that are deleted, ascending.
    pub(super) removed: Vec<usize>,
    /// Numbers that training changed of tensors that are no factors, by their name in the source.
    pub(super) trained: BTreeMap<String, Arc<Vec<f32>>>,
    /// Whether the head is the embedding, so that a copy of it in the source is dropped.
    pub(super) tied: bool,
}

/// The folder a checkpoint is made from.
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    pub(super) weights: &'a Weights,
    /// Content of config.json.
    pub(super) config: &'a Value,
    /// The stock architecture, such as `LlamaForCausalLM`.
    pub(super) architecture: &'a str,
}

/// What one checkpoint is to look like.
#[derive(Clone, Copy)]
struct Target {
    format: ExportFormat,
    dtype: Option<ExportType>,
}

impl Target {
    fn is_dense(self) -> bool {
        self.format == ExportFormat::Dense
    }

    /// The type that numbers of this type are written as; what is no number graspd reads stays as it is.
    fn dtype_of(self, source: Dtype) -> Dtype {
        match source {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => self.dtype.map_or(source, number_type),
            other => other,
        }
    }
}

/// The type of safetensors files.
const fn number_type(dtype: ExportType) -> Dtype {
    match dtype {
        ExportType::F32 => Dtype::F32,
        ExportType::Bf16 => Dtype::BF16,
        ExportType::F16 => Dtype::F16,
    }
}

/// Writes every checkpoint of the job but the cards; `observe` gets tensors done and in all.
pub(super) fn write(
    source: &Source<'_>,
    changes: &Changes,
    export: &Export,
    output: &Path,
    observe: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
) -> Result<Vec<CheckpointReport>, Error> {
    let count = export.formats.len() as u64;
    let mut written = Vec::new();
    for (index, &format) in (0..).zip(&export.formats) {
        let folder = if count > 1 { format.as_str() } else { "" };
        let target = Target { format, dtype: export.dtype };
        let checkpoint = Checkpoint { source, changes, target, place: place_of(output, folder) };
        fs::create_dir_all(&checkpoint.place).map_err(checkpoint::Error::io(&checkpoint.place))?;
        let bytes = checkpoint
            .write_weights(export.max_shard_size, &mut |done, total| observe(index * total + done, count * total))?;
        checkpoint.write_companions()?;
        let parameters = count_parameters(&Weights::open(&checkpoint.place)?, changes.tied);
        written.push(CheckpointReport { format, folder: folder.to_owned(), dtype: export.dtype, parameters, bytes });
    }
    Ok(written)
}

/// The folder of a checkpoint; joining an empty name would add a slash to it.
fn place_of(output: &Path, folder: &str) -> PathBuf {
    if folder.is_empty() { output.to_owned() } else { output.join(folder) }
}

/// A checkpoint that is being written.
struct Checkpoint<'a> {
    source: &'a Source<'a>,
    changes: &'a Changes,
    target: Target,
    place: PathBuf,
}

impl Checkpoint<'_> {
    fn write_weights(
        &self,
        largest_shard: u64,
        observe: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let tensors = tensors(self.source.weights, self.changes, self.target)?;
        let total = tensors.len() as u64;
        let mut done = 0;
        let mut ended = None;
        let bytes = write_safetensors(&self.place, tensors, largest_shard, || {
            done += 1;
            observe(done, total).map_err(|error| {
                ended = Some(error);
                checkpoint::Error::Cancelled
            })
        });
        bytes.map_err(|error| ended.take().unwrap_or_else(|| error.into()))
    }

    fn write_companions(&self) -> Result<(), Error> {
        let config = config(self.source.config, self.source.architecture, self.changes, self.target);
        self.write("config.json", &format!("{config:#}\n"))?;
        if config.get("auto_map").is_some() {
            PYTHON.iter().try_for_each(|(name, text)| self.write(name, text))?;
        }
        for name in COMPANIONS {
            let from = self.source.folder.join(name);
            if from.is_file() {
                fs::copy(&from, self.place.join(name)).map_err(checkpoint::Error::io(&from))?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.place.join(name);
        Ok(fs::write(&path, text).map_err(checkpoint::Error::io(&path))?)
    }
}

/// The type that a module's weight is written as, dense or factored.
pub(super) fn written_dtype(module: &str, weights: &Weights, export: &Export) -> Option<Dtype> {
    export.dtype.map(number_type).or_else(|| module_dtype(module, weights))
}

/// Type of the numbers of a module's weight, dense or factored.
fn module_dtype(module: &str, weights: &Weights) -> Option<Dtype> {
    weights.get(&format!("{module}.weight")).or_else(|| weights.get(&factor_names(module).0)).map(|entry| entry.dtype)
}

/// Parameters of a checkpoint: all its numbers, a tied head once, tables of angles not at all.
pub(super) fn count_parameters(weights: &Weights, tied: bool) -> u64 {
    let counted = |name: &str| !name.ends_with("rotary_emb.inv_freq") && (name != "lm_head.weight" || !tied);
    weights.iter().filter(|(name, _)| counted(name)).map(|(_, entry)| entry.elements()).sum()
}
