use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::{
    Batch, Block, Config, Factors, Head, Linear, Matrix, Rotary,
    attention::{Attention, shape_of},
    block::Mlp,
};
use crate::{
    checkpoint::{Error, Weights},
    job::spec::Projection,
};

/// Called after each layer of a long step with (done, total); an error ends the step.
pub type Observe<'a> = &'a mut dyn FnMut(usize, usize) -> std::result::Result<(), Error>;

/// A whole decoder in memory.
pub struct Decoder {
    /// Its shape.
    pub config: Config,
    /// Rows of the embedding [vocabulary, hidden].
    pub embedding: Tensor,
    /// Its layers.
    pub blocks: Vec<Arc<Block>>,
    /// Final norm and head.
    pub head: Head,
    /// Angles of the longest window it is used on.
    pub rotary: Rotary,
    /// Where its tensors are.
    pub device: Device,
}

/// Name of layer `index`'s part `path` in a checkpoint: `model.layers.2.mlp.up_proj`.
pub fn module_name(index: usize, path: &str) -> String {
    format!("model.layers.{index}.{path}")
}

impl Decoder {
    /// Reads all weights onto `device`, ready for windows of up to `longest` tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the tensor that is missing, misshapen or not finite.
    pub fn load(
        weights: &Weights,
        config: &Config,
        longest: usize,
        device: &Device,
        observe: Observe<'_>,
    ) -> std::result::Result<Self, Error> {
        let loader = Loader { weights, config, device };
        let Config { vocab_size, hidden_size, num_layers, .. } = *config;
        let embedding = loader.tensor("model.embed_tokens.weight", &[vocab_size, hidden_size])?;
        let weight = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => loader.tensor("lm_head.weight", &[vocab_size, hidden_size])?,
        };
        let norm = loader.tensor("model.norm.weight", &[hidden_size])?;
        let mut blocks = Vec::with_capacity(num_layers);
        for index in 0..num_layers {
            blocks.push(Arc::new(loader.block(index)?));
            observe(index + 1, num_layers)?;
        }
        Ok(Self {
            head: Head { norm, weight, eps: config.rms_norm_eps },
            rotary: Rotary::new(config, longest, device)?,
            config: config.clone(),
            device: device.clone(),
            embedding,
            blocks,
        })
    }

    /// Hidden states [tokens, hidden] of windows of one length.
    pub fn embed(&self, windows: &[&[u32]]) -> Result<Tensor> {
        let tokens: Vec<u32> = windows.concat();
        let count = tokens.len();
        self.embedding.index_select(&Tensor::from_vec(tokens, count, &self.device)?, 0)
    }

    /// Hidden states behind layers `layers`.
    pub fn forward(&self, hidden: Tensor, layers: std::ops::Range<usize>, batch: Batch) -> Result<Tensor> {
        layers.into_iter().try_fold(hidden, |hidden, layer| self.blocks[layer].forward(&hidden, batch, &self.rotary))
    }

    /// Puts `matrix` in a projection's place; its bias stays.
    pub fn replace(&mut self, layer: usize, projection: Projection, matrix: Matrix) -> Result<()> {
        let Some(block) = Arc::get_mut(&mut self.blocks[layer]) else {
            candle_core::bail!("layer {layer} is in use while it is replaced");
        };
        block.projection_mut(projection).matrix = matrix;
        Ok(())
    }

    /// Deletes layers (ascending indices).
    pub fn remove(&mut self, layers: &[usize]) {
        let mut index = 0;
        self.blocks.retain(|_| {
            index += 1;
            !layers.contains(&(index - 1))
        });
    }
}

struct Loader<'a> {
    weights: &'a Weights,
    config: &'a Config,
    device: &'a Device,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> std::result::Result<Tensor, Error> {
        self.weights.tensor(name, shape, self.device)
    }

    fn block(&self, index: usize) -> std::result::Result<Block, Error> {
        let Config { hidden_size: hidden, head_dim, rms_norm_eps: eps, .. } = *self.config;
        let linear = |projection: Projection| self.linear(index, projection);
        let qk_norm = match self.config.qk_norm {
            true => {
                let norm =
                    |name: &str| self.tensor(&module_name(index, &format!("self_attn.{name}.weight")), &[head_dim]);
                Some((norm("q_norm")?, norm("k_norm")?))
            }
            false => None,
        };
        Ok(Block {
            input_norm: self.tensor(&module_name(index, "input_layernorm.weight"), &[hidden])?,
            attention: Attention {
                q_proj: linear(Projection::QProj)?,
                k_proj: linear(Projection::KProj)?,
                v_proj: linear(Projection::VProj)?,
                o_proj: linear(Projection::OProj)?,
                qk_norm,
                shape: shape_of(self.config, index),
                eps,
            },
            post_norm: self.tensor(&module_name(index, "post_attention_layernorm.weight"), &[hidden])?,
            mlp: Mlp {
                gate_proj: linear(Projection::GateProj)?,
                up_proj: linear(Projection::UpProj)?,
                down_proj: linear(Projection::DownProj)?,
            },
            eps,
        })
    }

    fn linear(&self, index: usize, projection: Projection) -> std::result::Result<Linear, Error> {
        let [out, input] = self.config.projection_shape(projection);
        let name = module_name(index, projection.path());
        let (input_name, output_name) = factor_names(&name);
        let factored = self.weights.get(&input_name);
        let (matrix, bias) = match factored {
            None => (Matrix::Dense(self.tensor(&format!("{name}.weight"), &[out, input])?), format!("{name}.bias")),
            Some(entry) => {
                let rank = entry.shape.first().copied().unwrap_or(0);
                let factors = Factors {
                    input: self.tensor(&input_name, &[rank, input])?,
                    output: self.tensor(&output_name, &[out, rank])?,
                };
                (Matrix::Factored(factors), output_name.replace(".weight", ".bias"))
            }
        };
        let bias = match self.config.has_bias(projection) {
            true => Some(self.tensor(&bias, &[out])?),
            false => None,
        };
        Ok(Linear { matrix, bias })
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
