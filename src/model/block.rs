use candle_core::{Result, Tensor};

use super::{
    Batch, Linear, Rotary,
    attention::{self, Attention},
    ops::{accumulate, rms_norm, rms_norm_backward, swiglu, swiglu_backward},
};
use crate::job::spec::Projection;

/// Takes the gradients of a layer's projections during a backward pass.
pub trait GradientSink {
    /// `x` [tokens, in] is what the projection got, `gy` [tokens, out] the gradient of what it gave: its weight's
    /// gradient is `gyᵀ x`.
    fn accept(&mut self, projection: Projection, x: &Tensor, gy: &Tensor) -> Result<()>;

    /// The same, and returns ∂L/∂x [tokens, in], on whose way to `x` a sink may find what it is looking for.
    fn backward(&mut self, projection: Projection, linear: &Linear, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        self.accept(projection, x, gy)?;
        linear.backward(gy)
    }

    /// `x` [.., width] is what a norm got, `gy` the gradient of what it gave; most callers do not care.
    fn accept_norm(&mut self, _norm: Norm, _x: &Tensor, _gy: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// A norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Norm {
    /// Before attention.
    Input,
    /// Before the MLP.
    Post,
    /// Of each query head.
    Query,
    /// Of each key head.
    Key,
}

/// A sink for layers whose own gradients nobody wants.
impl GradientSink for () {
    fn accept(&mut self, _: Projection, _: &Tensor, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// The MLP block of a layer.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "the names are those of checkpoints")]
pub struct Mlp {
    /// Gate.
    pub gate_proj: Linear,
    /// Up.
    pub up_proj: Linear,
    /// Down.
    pub down_proj: Linear,
}

/// A decoder layer.
#[derive(Clone)]
pub struct Block {
    /// Weight of the norm before attention [hidden].
    pub input_norm: Tensor,
    /// Attention.
    pub attention: Attention,
    /// Weight of the norm before the MLP [hidden].
    pub post_norm: Tensor,
    /// MLP.
    pub mlp: Mlp,
    pub(super) eps: f64,
}

/// What the backward pass of a layer needs of its forward pass.
pub struct Saved {
    x: Tensor,
    attention: attention::Saved,
    h: Tensor,
    normed: Tensor,
    gate: Tensor,
    up: Tensor,
}

impl Block {
    /// `x` [tokens, hidden] to the layer's output of the same shape.
    pub fn forward(&self, x: &Tensor, batch: Batch, rotary: &Rotary) -> Result<Tensor> {
        self.forward_saving(x, batch, rotary).map(|(y, _)| y)
    }

    /// As [`Self::forward`], with what [`Self::backward`] needs.
    pub fn forward_saving(&self, x: &Tensor, batch: Batch, rotary: &Rotary) -> Result<(Tensor, Saved)> {
        let (attended, attention) = self.attention.forward(&rms_norm(x, &self.input_norm, self.eps)?, batch, rotary)?;
        let h = accumulate(attended, x)?;
        let normed = rms_norm(&h, &self.post_norm, self.eps)?;
        let (gate, up) = (self.mlp.gate_proj.forward(&normed)?, self.mlp.up_proj.forward(&normed)?);
        let y = accumulate(self.mlp.down_proj.forward(&swiglu(&gate, &up)?)?, &h)?;
        Ok((y, Saved { x: x.clone(), attention, h, normed, gate, up }))
    }

    /// What q, k and v get of the layer's input, and gate and up of what [`Self::attended`] made of it.
    pub fn normed(&self, x: &Tensor, group: Projection) -> Result<Tensor> {
        rms_norm(x, if group.is_mlp() { &self.post_norm } else { &self.input_norm }, self.eps)
    }

    /// What `o_proj` [tokens, heads · d] gets, from what q, k and v get.
    pub fn attended(&self, normed: &Tensor, batch: Batch, rotary: &Rotary) -> Result<Tensor> {
        self.attention.attended(normed, batch, rotary).map(|saved| saved.o)
    }

    /// What `down_proj` [tokens, intermediate] gets, from what gate and up get.
    pub fn activated(&self, normed: &Tensor) -> Result<Tensor> {
        swiglu(&self.mlp.gate_proj.forward(normed)?, &self.mlp.up_proj.forward(normed)?)
    }

    /// ∂L/∂x from `gy` = ∂L/∂y, both [tokens, hidden]; the gradients of the projections go to `sink`.
    pub fn backward(
        &self,
        saved: &Saved,
        gy: &Tensor,
        batch: Batch,
        rotary: &Rotary,
        sink: &mut dyn GradientSink,
    ) -> Result<Tensor> {
        let Saved { x, attention, h, .. } = saved;
        let g_normed = self.mlp_backward(saved, gy, sink)?;
        sink.accept_norm(Norm::Post, h, &g_normed)?;
        let gh = accumulate(rms_norm_backward(h, &self.post_norm, self.eps, &g_normed)?, gy)?;
        let g_normed = self.attention.backward(attention, &gh, batch, rotary, sink)?;
        sink.accept_norm(Norm::Input, x, &g_normed)?;
        accumulate(rms_norm_backward(x, &self.input_norm, self.eps, &g_normed)?, &gh)
    }

    fn mlp_backward(&self, saved: &Saved, gy: &Tensor, sink: &mut dyn GradientSink) -> Result<Tensor> {
        let Saved { normed, gate, up, .. } = saved;
        // The product is cheap to make again and as large as both its factors.
        let g_activated = sink.backward(Projection::DownProj, &self.mlp.down_proj, &swiglu(gate, up)?, gy)?;
        let (g_gate, g_up) = swiglu_backward(gate, up, &g_activated)?;
        let of_gate = sink.backward(Projection::GateProj, &self.mlp.gate_proj, normed, &g_gate)?;
        accumulate(of_gate, &sink.backward(Projection::UpProj, &self.mlp.up_proj, normed, &g_up)?)
    }

    /// A projection of this layer.
    pub const fn projection(&self, projection: Projection) -> &Linear {
        match projection {
            Projection::QProj => &self.attention.q_proj,
            Projection::KProj => &self.attention.k_proj,
            Projection::VProj => &self.attention.v_proj,
            Projection::OProj => &self.attention.o_proj,
            Projection::GateProj => &self.mlp.gate_proj,
            Projection::UpProj => &self.mlp.up_proj,
            Projection::DownProj => &self.mlp.down_proj,
        }
    }

    /// A projection of this layer, to be replaced.
    pub const fn projection_mut(&mut self, projection: Projection) -> &mut Linear {
        match projection {
            Projection::QProj => &mut self.attention.q_proj,
            Projection::KProj => &mut self.attention.k_proj,
            Projection::VProj => &mut self.attention.v_proj,
            Projection::OProj => &mut self.attention.o_proj,
            Projection::GateProj => &mut self.mlp.gate_proj,
            Projection::UpProj => &mut self.mlp.up_proj,
            Projection::DownProj => &mut self.mlp.down_proj,
        }
    }
}
