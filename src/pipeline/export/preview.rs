//! The decoder as the checkpoint will be, so that scores are those of what is published.

use candle_core::DType;
use safetensors::Dtype;

use super::written_dtype;
use crate::{
    checkpoint::Weights,
    job::spec::{Export, ExportFormat, ExportType},
    model::{Decoder, Matrix},
    pipeline::{
        Error,
        compress::{Compressed, install},
    },
};

/// Puts the compressed matrices in their places and rounds all weights as the first checkpoint of the job has them.
pub(in crate::pipeline) fn install_as_exported(
    decoder: &mut Decoder,
    matrices: &[Compressed],
    weights: &Weights,
    export: &Export,
) -> Result<(), Error> {
    for matrix in matrices {
        let dtype = written_dtype(&matrix.triplets.name, weights, export);
        match export.formats.contains(&ExportFormat::Factored) {
            true => install(decoder, matrix, dtype)?,
            false => install_product(decoder, matrix, dtype)?,
        }
    }
    if let Some(dtype) = export.dtype {
        decoder.round_to(tensor_type(dtype))?;
    }
    Ok(())
}

/// The product is rounded, its factors are not.
fn install_product(decoder: &mut Decoder, matrix: &Compressed, dtype: Option<Dtype>) -> Result<(), Error> {
    install(decoder, matrix, None)?;
    let product = decoder.block(matrix.layer)?.projection(matrix.projection).matrix.to_dense()?;
    let rounded = match dtype {
        Some(Dtype::BF16) => product.to_dtype(DType::BF16)?.to_dtype(DType::F32)?,
        Some(Dtype::F16) => product.to_dtype(DType::F16)?.to_dtype(DType::F32)?,
        _ => product,
    };
    Ok(decoder.replace(matrix.layer, matrix.projection, Matrix::Dense(rounded))?)
}

const fn tensor_type(dtype: ExportType) -> DType {
    match dtype {
        ExportType::F32 => DType::F32,
        ExportType::Bf16 => DType::BF16,
        ExportType::F16 => DType::F16,
    }
}
