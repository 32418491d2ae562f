use candle_core::{DType, Result, Tensor};

use super::{Block, Decoder, Factors, Linear, Matrix};
use crate::job::spec::Projection;

impl Decoder {
    /// Makes every weight what it becomes when it is written as `dtype` and read again.
    pub fn round_to(&mut self, dtype: DType) -> Result<()> {
        let round = |tensor: &mut Tensor| rounded(tensor, dtype);
        round(&mut self.embedding)?;
        round(&mut self.head.norm)?;
        match self.config.tie_word_embeddings {
            true => self.head.weight = self.embedding.clone(),
            false => round(&mut self.head.weight)?,
        }
        self.round_layers_to(dtype)
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
            let Linear { matrix, bias, .. } = self.projection_mut(projection);
            match matrix {
                Matrix::Dense(weight) => change(weight)?,
                Matrix::Factored(Factors { input, output }) => {
                    change(input)?;
                    change(output)?;
                }
            }
            bias.iter_mut().try_for_each(change)?;
        }
        Ok(())
    }
}
