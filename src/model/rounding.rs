use candle_core::{DType, Result, Tensor};

use super::{Adapter, Block, Decoder, Factors, Linear, Matrix};
use crate::job::spec::Projection;

impl Decoder {
    /// Makes every weight what it becomes when it is written as `dtype` and read again.
    pub fn round_to(&mut self, dtype: DType) -> Result<()> {
        self.each_end(&|tensor: &mut Tensor| rounded(tensor, dtype))?;
        self.round_layers_to(dtype)
    }

    /// Holds and computes everything in `dtype` from here on, adapters included: what is narrower than it was loses
    /// digits, what is wider keeps its numbers. Tensors that others hold stay as they are.
    ///
    /// # Errors
    /// As [`Self::block_mut`].
    pub fn to_dtype(&mut self, dtype: DType) -> Result<()> {
        let cast = |tensor: &mut Tensor| -> Result<()> {
            *tensor = tensor.to_dtype(dtype)?;
            Ok(())
        };
        self.each_end(&cast)?;
        (0..self.num_layers()).try_for_each(|layer| self.block_mut(layer)?.each_weight(&cast))
    }

    /// Changes the embedding and the head; where they are tied they stay one.
    fn each_end(&mut self, change: &dyn Fn(&mut Tensor) -> Result<()>) -> Result<()> {
        change(&mut self.embedding)?;
        change(&mut self.head.norm)?;
        match self.config.tie_word_embeddings {
            true => self.head.weight = self.embedding.clone(),
            false => change(&mut self.head.weight)?,
        }
        Ok(())
    }
}

fn rounded(tensor: &mut Tensor, dtype: DType) -> Result<()> {
    *tensor = tensor.to_dtype(dtype)?.to_dtype(DType::F32)?;
    Ok(())
}

impl Block {
    /// As [`Decoder::round_to`], for one layer.
    pub(super) fn round_to(&mut self, dtype: DType) -> Result<()> {
        self.each_weight(&|tensor: &mut Tensor| rounded(tensor, dtype))
    }

    fn each_weight(&mut self, change: &dyn Fn(&mut Tensor) -> Result<()>) -> Result<()> {
        change(&mut self.input_norm)?;
        change(&mut self.post_norm)?;
        if let Some((queries, keys)) = &mut self.attention.qk_norm {
            change(queries)?;
            change(keys)?;
        }
        for projection in Projection::ALL {
            let Linear { matrix, bias, adapters } = self.projection_mut(projection);
            match matrix {
                Matrix::Dense(weight) => change(weight)?,
                Matrix::Factored(Factors { input, output }) => {
                    change(input)?;
                    change(output)?;
                }
            }
            bias.iter_mut().try_for_each(change)?;
            for Adapter { down, up, .. } in adapters {
                change(down)?;
                change(up)?;
            }
        }
        Ok(())
    }
}
