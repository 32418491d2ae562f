//! Greedy generation, a token at a time, and how fast it goes.

use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::{
    checkpoint::Error,
    model::{Cache, Decoder},
};

/// Tokens of the prompt that is measured, where the model's context is long enough.
const PROMPT: usize = 512;
/// Tokens generated behind it, and the time after which there are no more.
const GENERATED: usize = 64;
const LONGEST: Duration = Duration::from_secs(10);
/// Tokens of a prompt that go through the model at once; keys and values are kept of all.
pub const READ_AT_ONCE: usize = 2048;

/// A text that goes on token by token.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    cache: Cache,
    choose: LogitsProcessor,
    /// Those of the next token, [vocabulary].
    logits: Tensor,
}

impl<'a> Generation<'a> {
    /// Reads a prompt of at least one token; prompt and text together have at most `capacity` tokens. The decoder must
    /// reach as far. `observe` is called after each layer.
    ///
    /// # Errors
    /// Whatever `observe` returns to end early, or the device's own failure.
    pub fn begin(
        decoder: &'a Decoder,
        prompt: &[u32],
        capacity: usize,
        observe: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let choose = LogitsProcessor::from_sampling(0, Sampling::ArgMax);
        let logits = Tensor::zeros(decoder.config.vocab_size, DType::F32, &decoder.device)?;
        let mut begun = Self { decoder, cache: decoder.cache(capacity)?, choose, logits };
        for tokens in prompt.chunks(READ_AT_ONCE) {
            begun.read(tokens, observe)?;
        }
        Ok(begun)
    }

    /// The likeliest next token, behind which the text then goes on.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn step(&mut self, observe: &mut dyn FnMut() -> Result<(), Error>) -> Result<u32, Error> {
        let token = self.likeliest(&[])?;
        self.push(token, observe)?;
        Ok(token)
    }

    /// Goes on behind another token.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) fn push(&mut self, token: u32, observe: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        self.read(&[token], observe)
    }

    /// The likeliest next token that is not `barred`.
    ///
    /// # Errors
    /// The device's own failure.
    pub(super) fn likeliest(&mut self, barred: &[u32]) -> Result<u32, Error> {
        if barred.is_empty() {
            return Ok(self.choose.sample(&self.logits)?);
        }
        let mut logits: Vec<f32> = self.logits.to_dtype(DType::F32)?.to_vec1()?;
        for &token in barred {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(self.choose.sample(&Tensor::new(logits, self.logits.device())?)?)
    }

    /// Whether the model's numbers are.
    ///
    /// # Errors
    /// The device's own failure.
    pub(super) fn is_finite(&self) -> Result<bool, Error> {
        Ok(self.logits.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite())
    }

    fn read(&mut self, tokens: &[u32], observe: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let hidden = self.decoder.forward_cached(tokens, &mut self.cache, observe)?;
        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        self.logits = self.decoder.head.logits(&last)?.squeeze(0)?;
        Ok(())
    }
}

/// How fast a model reads and writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, in a second.
    pub prefill_tokens_per_second: f64,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Of these, in a second.
    pub generated_tokens_per_second: f64,
}

/// Measures on a prompt of no meaning, as what is read and written does not change how fast it goes.
///
/// # Errors
/// As [`Generation::begin`].
pub fn measure_speed(decoder: &mut Decoder, observe: &mut dyn FnMut() -> Result<(), Error>) -> Result<Speed, Error> {
    let context = decoder.config.max_position_embeddings.max(2);
    let prompt_tokens = PROMPT.min(context / 2);
    let most = GENERATED.min(context - prompt_tokens);
    decoder.reach(prompt_tokens + most)?;
    let vocabulary = decoder.config.vocab_size;
    // Steps of a large prime go round the vocabulary.
    let prompt: Vec<u32> = (0..prompt_tokens).map(|index| (index * 7919 % vocabulary) as u32).collect();
    // The first pass touches every weight for the first time.
    Generation::begin(decoder, &prompt[..1], 1, observe)?;
    let start = Instant::now();
    let mut text = Generation::begin(decoder, &prompt, prompt_tokens + most, observe)?;
    let prefill = start.elapsed();
    let (start, mut generated_tokens) = (Instant::now(), 0);
    while generated_tokens < most && start.elapsed() < LONGEST {
        text.step(observe)?;
        generated_tokens += 1;
    }
    let a_second = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    Ok(Speed {
        prompt_tokens,
        prefill_tokens_per_second: a_second(prompt_tokens, prefill),
        generated_tokens,
        generated_tokens_per_second: a_second(generated_tokens, start.elapsed()),
    })
}
