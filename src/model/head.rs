use candle_core::{Result, Tensor};

use super::{
    Batch,
    ops::{cross_entropy, cross_entropy_backward, rms_norm, rms_norm_backward},
};

/// Logits held at once, in numbers: 64 MiB of f32.
pub const LOGITS: usize = 16 << 20;

/// The final norm and the map to the vocabulary.
pub struct Head {
    /// Weight of the norm [hidden].
    pub norm: Tensor,
    /// W [vocabulary, hidden]; the embedding where the two are tied.
    pub weight: Tensor,
    pub(super) eps: f64,
}

/// Cross-entropy of a batch.
pub struct Losses {
    /// −log p of the next token at every position but the last of each window, window after window.
    pub tokens: Vec<f64>,
    /// ∂/∂hidden of the sum over windows of the mean loss of a window, [tokens, hidden]; where it was asked for.
    pub gradient: Option<Tensor>,
}

impl Head {
    /// Logits [tokens, vocabulary] of hidden states [tokens, hidden].
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        rms_norm(hidden, &self.norm, self.eps)?.matmul(&self.weight.t()?)
    }

    /// Next-token cross-entropy of `hidden` [tokens, hidden] against the `windows` it came from; the logits exist only
    /// a few tokens at a time. The last position of a window predicts nothing and has no gradient.
    pub fn losses(&self, hidden: &Tensor, windows: &[&[u32]], with_gradient: bool) -> Result<Losses> {
        let batch = Batch { windows: windows.len(), length: windows.first().map_or(0, |window| window.len()) };
        let normed = rms_norm(hidden, &self.norm, self.eps)?;
        let weight = 1.0 / (batch.length - 1) as f32;
        let (mut tokens, mut gradients) = (Vec::with_capacity(batch.tokens()), Vec::new());
        let chunk = even_chunk(batch.length - 1, LOGITS / self.weight.dim(0)?);
        for (index, window) in windows.iter().enumerate() {
            for start in (0..batch.length - 1).step_by(chunk) {
                let count = chunk.min(batch.length - 1 - start);
                let logits = normed.narrow(0, index * batch.length + start, count)?.matmul(&self.weight.t()?)?;
                let targets = &window[start + 1..=start + count];
                if with_gradient {
                    let (losses, gradient) = cross_entropy_backward(logits, targets, weight)?;
                    tokens.extend(losses);
                    gradients.push(gradient.matmul(&self.weight)?);
                } else {
                    tokens.extend(cross_entropy(&logits, targets)?);
                }
            }
            if with_gradient {
                gradients.push(Tensor::zeros((1, hidden.dim(1)?), hidden.dtype(), hidden.device())?);
            }
        }
        let gradient = match with_gradient {
            true => Some(rms_norm_backward(hidden, &self.norm, self.eps, &Tensor::cat(&gradients, 0)?)?),
            false => None,
        };
        Ok(Losses { tokens, gradient })
    }
}

impl Head {
    /// −log p of `targets` [n] at the rows `positions` [n] of `hidden` [tokens, hidden], each of which is that of the
    /// token before; with a `weight`, also ∂/∂hidden of the weight times their sum. Logits exist only where a target is,
    /// and only a few rows at a time.
    pub fn losses_at(
        &self,
        hidden: &Tensor,
        positions: &[u32],
        targets: &[u32],
        weight: Option<f32>,
    ) -> Result<Losses> {
        let index = Tensor::new(positions, hidden.device())?;
        let picked = hidden.index_select(&index, 0)?;
        let normed = rms_norm(&picked, &self.norm, self.eps)?;
        let (mut tokens, mut gradients) = (Vec::with_capacity(targets.len()), Vec::new());
        let chunk = even_chunk(targets.len(), LOGITS / self.weight.dim(0)?);
        for (part, targets) in targets.chunks(chunk).enumerate() {
            let logits = normed.narrow(0, part * chunk, targets.len())?.matmul(&self.weight.t()?)?;
            let Some(weight) = weight else {
                tokens.extend(cross_entropy(&logits, targets)?);
                continue;
            };
            let (losses, gradient) = cross_entropy_backward(logits, targets, weight)?;
            tokens.extend(losses);
            gradients.push(gradient.matmul(&self.weight)?);
        }
        if weight.is_none() {
            return Ok(Losses { tokens, gradient: None });
        }
        let picked = rms_norm_backward(&picked, &self.norm, self.eps, &Tensor::cat(&gradients, 0)?)?;
        let gradient = Some(hidden.zeros_like()?.index_add(&index, &picked, 0)?);
        Ok(Losses { tokens, gradient })
    }
}

/// The size of equal pieces of `total` that are no longer than `most`.
fn even_chunk(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1))).max(1)
}
