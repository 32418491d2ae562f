//! Speed and memory of generation.

use crate::{
    checkpoint,
    eval::measure_speed,
    job::{InferenceFigures, Progress, Stage},
    model::{Decoder, Residency},
    pipeline::{
        Context, Error,
        state::{State, resident_bytes},
    },
};

/// Measures once a job; `None` for a decoder whose layers are in their files, where every token would read them all.
pub(super) fn measure(
    decoder: &mut Decoder,
    part: &str,
    state: &mut State,
    context: &Context<'_>,
) -> Result<Option<InferenceFigures>, Error> {
    if decoder.residency() == Residency::Streamed {
        return Ok(None);
    }
    if let Some(known) = state.finished.inference.get(part) {
        return Ok(Some(*known));
    }
    let figures = state.timed(Stage::Evaluate, |_| {
        let mut peak_memory_bytes = 0;
        let progress = Progress { part: Some(format!("{part}, inference")), ..Progress::new(Stage::Evaluate, 0, 1) };
        let speed = measure_speed(decoder, &mut || {
            peak_memory_bytes = peak_memory_bytes.max(resident_bytes());
            context.progress(progress.clone()).map_err(|_| checkpoint::Error::Cancelled)
        })?;
        let (parameters, weight_bytes) = decoder.size()?;
        Ok(InferenceFigures {
            parameters,
            weight_bytes,
            prompt_tokens: speed.prompt_tokens,
            prefill_tokens_per_second: speed.prefill_tokens_per_second,
            generated_tokens: speed.generated_tokens,
            generated_tokens_per_second: speed.generated_tokens_per_second,
            peak_memory_bytes,
        })
    })?;
    state.finished.inference.insert(part.to_owned(), figures);
    state.save()?;
    Ok(Some(figures))
}
