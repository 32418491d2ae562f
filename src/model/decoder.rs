use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Result as DeviceResult, Tensor};

use super::{Batch, Block, Config, Head, Matrix, Rotary, Scope, loader::Loader};
use crate::{
    checkpoint::{Error, Weights},
    job::spec::Projection,
};

/// Called after each layer of a long step with (done, total); an error ends the step.
pub type Observe<'a> = &'a mut dyn FnMut(usize, usize) -> Result<(), Error>;

/// Where the layers of a decoder are while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// All in memory.
    Resident,
    /// In their files; one is read whenever it is its turn.
    Streamed,
}

impl Residency {
    /// As reports name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Streamed => "streamed",
        }
    }
}

/// Where a decoder works.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Computes.
    pub device: &'a Device,
    /// Where the layers are.
    pub residency: Residency,
    /// A folder for hidden states that wait for their layer.
    pub scratch: &'a Path,
}

/// A whole decoder: its embedding and head in memory, its layers there or in their files.
pub struct Decoder {
    /// Its shape.
    pub config: Config,
    /// Rows of the embedding [vocabulary, hidden].
    pub embedding: Tensor,
    layers: Layers,
    /// Final norm and head.
    pub head: Head,
    /// Angles of the longest window it is used on.
    pub rotary: Rotary,
    /// Where its tensors are.
    pub device: Device,
    pub(super) scratch: PathBuf,
}

enum Layers {
    Resident(Vec<Arc<Block>>),
    Streamed(Box<Streamed>),
}

/// Layers that are read from their files when they are asked for.
struct Streamed {
    weights: Arc<Weights>,
    config: Config,
    device: Device,
    /// The layers' indices in the files, in the order of the model.
    order: Vec<usize>,
    /// What stands in place of matrices of the files, by index in the files.
    replaced: BTreeMap<(usize, Projection), Matrix>,
    /// What every weight is rounded to.
    rounded: Option<DType>,
}

impl Streamed {
    fn block(&self, layer: usize) -> Result<Block, Error> {
        let index = self.order[layer];
        let loader = Loader { weights: &self.weights, config: &self.config, device: &self.device };
        let mut block = loader.block(index)?;
        for (&(_, projection), matrix) in
            self.replaced.range((index, Projection::QProj)..=(index, Projection::DownProj))
        {
            block.projection_mut(projection).matrix = matrix.clone();
        }
        if let Some(dtype) = self.rounded {
            block.round_to(dtype)?;
        }
        Ok(block)
    }
}

/// Name of layer `index`'s part `path` in a checkpoint: `model.layers.2.mlp.up_proj`.
pub fn module_name(index: usize, path: &str) -> String {
    format!("model.layers.{index}.{path}")
}

impl Decoder {
    /// Reads the weights onto `device`, ready for windows of up to `longest` tokens; of a streamed decoder's layers
    /// nothing yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the tensor that is missing, misshapen or not finite.
    pub fn load(
        weights: &Arc<Weights>,
        config: &Config,
        longest: usize,
        Place { device, residency, scratch }: Place<'_>,
        observe: Observe<'_>,
    ) -> Result<Self, Error> {
        let loader = Loader { weights, config, device };
        let Config { num_layers, .. } = *config;
        let (embedding, head) = loader.ends()?;
        let layers = match residency {
            Residency::Resident => {
                let mut blocks = Vec::with_capacity(num_layers);
                for index in 0..num_layers {
                    blocks.push(Arc::new(loader.block(index)?));
                    observe(index + 1, num_layers)?;
                }
                Layers::Resident(blocks)
            }
            Residency::Streamed => Layers::Streamed(Box::new(Streamed {
                weights: Arc::clone(weights),
                config: config.clone(),
                device: device.clone(),
                order: (0..num_layers).collect(),
                replaced: BTreeMap::new(),
                rounded: None,
            })),
        };
        Ok(Self {
            head,
            rotary: Rotary::new(config, longest, device)?,
            config: config.clone(),
            device: device.clone(),
            embedding,
            layers,
            scratch: scratch.to_owned(),
        })
    }

    /// Where its layers are.
    pub const fn residency(&self) -> Residency {
        match self.layers {
            Layers::Resident(_) => Residency::Resident,
            Layers::Streamed(_) => Residency::Streamed,
        }
    }

    /// How many layers it has.
    pub const fn num_layers(&self) -> usize {
        match &self.layers {
            Layers::Resident(blocks) => blocks.len(),
            Layers::Streamed(streamed) => streamed.order.len(),
        }
    }

    /// A layer; a streamed decoder reads it from its files and forgets it when the caller does.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn block(&self, layer: usize) -> Result<Arc<Block>, Error> {
        match &self.layers {
            Layers::Resident(blocks) => Ok(Arc::clone(&blocks[layer])),
            Layers::Streamed(streamed) => streamed.block(layer).map(Arc::new),
        }
    }

    /// Its numbers, a tied head counted once, and the bytes they take where it computes.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub fn size(&self) -> Result<(u64, u64), Error> {
        let ends = [&self.embedding, &self.head.norm].into_iter().chain(self.untied_head());
        let mut tensors: Vec<Tensor> = ends.cloned().collect();
        let (mut numbers, mut bytes) = (0, 0);
        for layer in 0..=self.num_layers() {
            for tensor in tensors.drain(..) {
                numbers += tensor.elem_count() as u64;
                bytes += (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
            }
            if layer < self.num_layers() {
                tensors.extend(self.block(layer)?.parameters(Scope::Full).into_iter().map(|(_, tensor)| tensor));
            }
        }
        Ok((numbers, bytes))
    }

    fn untied_head(&self) -> Option<&Tensor> {
        (!self.config.tie_word_embeddings).then_some(&self.head.weight)
    }

    /// Hidden states [tokens, hidden] of windows of one length.
    pub fn embed(&self, windows: &[&[u32]]) -> DeviceResult<Tensor> {
        let tokens: Vec<u32> = windows.concat();
        let count = tokens.len();
        self.embedding.index_select(&Tensor::from_vec(tokens, count, &self.device)?, 0)
    }

    /// Hidden states behind layers `layers`.
    pub fn forward(&self, hidden: Tensor, layers: std::ops::Range<usize>, batch: Batch) -> Result<Tensor, Error> {
        layers
            .into_iter()
            .try_fold(hidden, |hidden, layer| Ok(self.block(layer)?.forward(&hidden, batch, &self.rotary)?))
    }

    /// Puts `matrix` in a projection's place; its bias stays.
    pub fn replace(&mut self, layer: usize, projection: Projection, matrix: Matrix) -> DeviceResult<()> {
        if let Layers::Streamed(streamed) = &mut self.layers {
            streamed.replaced.insert((streamed.order[layer], projection), matrix);
            return Ok(());
        }
        self.block_mut(layer)?.projection_mut(projection).matrix = matrix;
        Ok(())
    }

    /// A layer in memory, to be changed.
    pub fn block_mut(&mut self, layer: usize) -> DeviceResult<&mut Block> {
        let Layers::Resident(blocks) = &mut self.layers else {
            candle_core::bail!("layer {layer} is read from its file and cannot be changed");
        };
        match Arc::get_mut(&mut blocks[layer]) {
            Some(block) => Ok(block),
            None => candle_core::bail!("layer {layer} is in use while it is changed"),
        }
    }

    /// Rounds every weight of the layers to `dtype`: those in memory at once, those in files whenever they are read.
    pub(super) fn round_layers_to(&mut self, dtype: DType) -> DeviceResult<()> {
        match &mut self.layers {
            Layers::Resident(blocks) => blocks.iter_mut().try_for_each(|block| match Arc::get_mut(block) {
                Some(block) => block.round_to(dtype),
                None => candle_core::bail!("a layer is in use while it is rounded"),
            }),
            Layers::Streamed(streamed) => {
                streamed.rounded = Some(dtype);
                Ok(())
            }
        }
    }

    /// Deletes layers (ascending indices).
    pub fn remove(&mut self, layers: &[usize]) {
        fn without<T>(all: &mut Vec<T>, layers: &[usize]) {
            let mut index = 0;
            all.retain(|_| {
                index += 1;
                !layers.contains(&(index - 1))
            });
        }
        match &mut self.layers {
            Layers::Resident(blocks) => without(blocks, layers),
            Layers::Streamed(streamed) => without(&mut streamed.order, layers),
        }
    }
}

/// Names of the two factors of module `name`.
pub fn factor_names(name: &str) -> (String, String) {
    (format!("{name}.InLinear.weight"), format!("{name}.OutLinear.weight"))
}

impl Config {
    /// `[out, in]` of a projection.
    pub const fn projection_shape(&self, projection: Projection) -> [usize; 2] {
        let (queries, keys) = (self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        match projection {
            Projection::QProj => [queries, self.hidden_size],
            Projection::KProj | Projection::VProj => [keys, self.hidden_size],
            Projection::OProj => [self.hidden_size, queries],
            Projection::GateProj | Projection::UpProj => [self.intermediate_size, self.hidden_size],
            Projection::DownProj => [self.hidden_size, self.intermediate_size],
        }
    }

    /// Whether a projection has a bias.
    pub const fn has_bias(&self, projection: Projection) -> bool {
        match projection {
            Projection::QProj | Projection::KProj | Projection::VProj => self.qkv_bias,
            Projection::OProj => self.output_bias,
            Projection::GateProj | Projection::UpProj | Projection::DownProj => self.mlp_bias,
        }
    }
}
