use candle_core::{Device, Tensor};

use super::{
    Block, Config, Factors, Head, Linear, Matrix,
    attention::{Attention, shape_of},
    block::Mlp,
    decoder::{factor_names, module_name},
};
use crate::{
    checkpoint::{Error, Weights},
    job::spec::Projection,
};

/// Reads parts of a decoder from its files.
pub(super) struct Loader<'a> {
    pub(super) weights: &'a Weights,
    pub(super) config: &'a Config,
    pub(super) device: &'a Device,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        self.weights.tensor(name, shape, self.device)
    }

    /// The embedding [vocabulary, hidden], and the final norm with the head.
    pub(super) fn ends(&self) -> Result<(Tensor, Head), Error> {
        let Config { vocab_size, hidden_size, .. } = *self.config;
        let embedding = self.tensor("model.embed_tokens.weight", &[vocab_size, hidden_size])?;
        let weight = match self.config.tie_word_embeddings {
            true => embedding.clone(),
            false => self.tensor("lm_head.weight", &[vocab_size, hidden_size])?,
        };
        let norm = self.tensor("model.norm.weight", &[hidden_size])?;
        Ok((embedding, Head { norm, weight, eps: self.config.rms_norm_eps }))
    }

    /// A whole layer.
    pub(super) fn block(&self, index: usize) -> Result<Block, Error> {
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

    fn linear(&self, index: usize, projection: Projection) -> Result<Linear, Error> {
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
        Ok(Linear::new(matrix, bias))
    }
}
