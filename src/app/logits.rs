//! What a model says of the next token, for holding it against other tools.

use std::path::Path;

use super::AppError;
use crate::{
    checkpoint::{self, Weights},
    cli,
    model::{Batch, Config, Decoder, open_device},
};

/// Prints the logits of every position as JSON, `[[…], …]`: a row of the vocabulary's size for each of `tokens`.
pub(super) fn logits(folder: &Path, tokens: &[u32]) -> Result<(), AppError> {
    let (config, _) = Config::read(folder)?;
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= config.vocab_size) {
        let what = format!("has {} tokens: --tokens names {token}", config.vocab_size);
        return Err(checkpoint::Error::invalid(folder, what).into());
    }
    let weights = Weights::open(folder)?;
    let device = open_device("cpu")?;
    let decoder = Decoder::load(&weights, &config, tokens.len(), &device, &mut |_, _| Ok(()))?;
    let batch = Batch { windows: 1, length: tokens.len() };
    let rows = decoder
        .embed(&[tokens])
        .and_then(|hidden| decoder.forward(hidden, 0..config.num_layers, batch))
        .and_then(|hidden| decoder.head.logits(&hidden)?.to_vec2::<f32>());
    let rows = rows.map_err(checkpoint::Error::from)?;
    Ok(cli::print(&format!("{}\n", serde_json::to_string(&rows)?))?)
}
