//! What a model says of the next token, for holding it against other tools.

use std::{path::Path, sync::Arc};

use super::AppError;
use crate::{
    checkpoint::{self, Weights},
    cli,
    model::{Batch, Config, Decoder, Place, Residency, open_device},
};

/// Prints the logits of every position as JSON, `[[…], …]`: a row of the vocabulary's size for each of `tokens`.
pub(super) fn logits(folder: &Path, tokens: &[u32]) -> Result<(), AppError> {
    let (config, _) = Config::read(folder)?;
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        let what = format!("has {} tokens: --tokens names {token}", config.vocab_size);
        return Err(checkpoint::Error::invalid(folder, what).into());
    }
    let weights = Arc::new(Weights::open(folder)?);
    let device = open_device("cpu")?;
    let place = Place { device: &device, residency: Residency::Resident, scratch: folder };
    let decoder = Decoder::load(&weights, &config, tokens.len(), place, &mut |_, _| Ok(()))?;
    let batch = Batch { windows: 1, length: tokens.len() };
    let hidden = decoder.embed(&[tokens]).map_err(checkpoint::Error::from)?;
    let hidden = decoder.forward(hidden, 0..config.num_layers, batch)?;
    let rows = decoder.head.logits(&hidden).and_then(|logits| logits.to_vec2::<f32>());
    let rows = rows.map_err(checkpoint::Error::from)?;
    Ok(cli::print(&format!("{}\n", serde_json::to_string(&rows)?))?)
}
