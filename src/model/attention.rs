use candle_core::{Result, Tensor};

use super::{
    Batch, Config, GradientSink, Linear, Norm, Rotary,
    ops::{AttentionShape, accumulate, attend, attend_backward, rms_norm, rms_norm_backward},
    rotary::Turn,
};
use crate::job::spec::Projection;

/// The attention block of a layer.
#[derive(Clone)]
pub struct Attention {
    /// Queries.
    pub q_proj: Linear,
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Output.
    pub o_proj: Linear,
    /// Norms of each query and key head [`head_dim`], where the family has them.
    pub qk_norm: Option<(Tensor, Tensor)>,
    /// Sizes; the batch is filled in at each call.
    pub(super) shape: AttentionShape,
    pub(super) eps: f64,
}

/// What the backward pass of an attention block needs.
pub(super) struct Saved {
    x: Tensor,
    /// Queries and keys as projected, kept only where they are normalised before they turn.
    unnormed: Option<(Tensor, Tensor)>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pub(super) o: Tensor,
    lse: Tensor,
}

/// The sizes of a layer's attention; the batch is a placeholder.
pub(super) fn shape_of(config: &Config, layer: usize) -> AttentionShape {
    AttentionShape {
        batch: Batch { windows: 0, length: 0 },
        heads: config.num_heads,
        kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        window: config.windows[layer],
    }
}

impl Attention {
    /// `x` [tokens, hidden], already normalised, to the block's output of the same shape.
    pub(super) fn forward(&self, x: &Tensor, batch: Batch, rotary: &Rotary) -> Result<(Tensor, Saved)> {
        let saved = self.attended(x, batch, rotary)?;
        Ok((self.o_proj.forward(&saved.o)?, saved))
    }

    /// As far as what `o_proj` gets.
    pub(super) fn attended(&self, x: &Tensor, batch: Batch, rotary: &Rotary) -> Result<Saved> {
        let shape = AttentionShape { batch, ..self.shape };
        let (q, k, v) = (self.q_proj.forward(x)?, self.k_proj.forward(x)?, self.v_proj.forward(x)?);
        let (unnormed, q, k) = match &self.qk_norm {
            Some((q_norm, k_norm)) => {
                let (q_normed, k_normed) = (self.norm_heads(&q, q_norm)?, self.norm_heads(&k, k_norm)?);
                (Some((q, k)), q_normed, k_normed)
            }
            None => (None, q, k),
        };
        let (q, k) = (rotary.apply(&q, batch, Turn::Forward)?, rotary.apply(&k, batch, Turn::Forward)?);
        let (o, lse) = attend(&q, &k, &v, shape)?;
        Ok(Saved { x: x.clone(), unnormed, q, k, v, o, lse })
    }

    /// ∂L/∂x from `gy`; the gradients of the projections go to `sink`.
    pub(super) fn backward(
        &self,
        saved: &Saved,
        gy: &Tensor,
        batch: Batch,
        rotary: &Rotary,
        sink: &mut dyn GradientSink,
    ) -> Result<Tensor> {
        let shape = AttentionShape { batch, ..self.shape };
        let Saved { x, unnormed, q, k, v, o, lse } = saved;
        let go = sink.backward(Projection::OProj, &self.o_proj, o, gy)?;
        let (gq, gk, gv) = attend_backward((q, k, v), (o, lse), &go, shape)?;
        let (mut gq, mut gk) = (rotary.apply(&gq, batch, Turn::Back)?, rotary.apply(&gk, batch, Turn::Back)?);
        if let (Some((q, k)), Some((q_norm, k_norm))) = (unnormed, &self.qk_norm) {
            sink.accept_norm(Norm::Query, q, &gq)?;
            sink.accept_norm(Norm::Key, k, &gk)?;
            gq = self.norm_heads_backward(q, q_norm, &gq)?;
            gk = self.norm_heads_backward(k, k_norm, &gk)?;
        }
        let of_queries = sink.backward(Projection::QProj, &self.q_proj, x, &gq)?;
        let of_keys = sink.backward(Projection::KProj, &self.k_proj, x, &gk)?;
        let of_values = sink.backward(Projection::VProj, &self.v_proj, x, &gv)?;
        accumulate(accumulate(of_queries, &of_keys)?, &of_values)
    }

    /// [tokens, heads · d] -> [tokens · heads, d], where a head is a row, and back.
    pub(super) fn norm_heads(&self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        rms_norm(&x.reshape(((), self.shape.head_dim))?, w, self.eps)?.reshape(x.shape())
    }

    fn norm_heads_backward(&self, x: &Tensor, w: &Tensor, gy: &Tensor) -> Result<Tensor> {
        let rows = |x: &Tensor| x.reshape(((), self.shape.head_dim));
        rms_norm_backward(&rows(x)?, w, self.eps, &rows(gy)?)?.reshape(x.shape())
    }
}
