//! A model's tokenizer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::checkpoint::Error;

const FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";

/// The tokenizer of a model folder.
pub struct Encoder {
    tokenizer: Tokenizer,
    vocab_size: usize,
    /// The token that stands before everything, else the one that ends a text; and its text.
    first: Option<(u32, String)>,
}

impl Encoder {
    /// Reads tokenizer.json.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is missing or unreadable.
    pub fn open(folder: &Path, vocab_size: usize) -> Result<Self, Error> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(Error::invalid(
                FILE,
                "is missing from the model's folder: graspd needs the tokenizer in its JSON form",
            ));
        }
        let mut tokenizer = guarded(|| Tokenizer::from_file(&path))
            .map_err(|error| Error::invalid(FILE, format!("cannot be read: {error}")))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| Error::invalid(FILE, error.to_string()))?;
        let first = first_token(folder).and_then(|text| Some((tokenizer.token_to_id(&text)?, text)));
        Ok(Self { tokenizer, vocab_size, first })
    }

    /// The token ids of `text`, with special tokens where the tokenizer puts them if `special` says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a token is not one of the model's.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = guarded(|| self.tokenizer.encode_fast(text, special))
            .map_err(|error| Error::invalid(FILE, format!("cannot encode the text: {error}")))?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(ids),
            Some(id) => {
                Err(Error::invalid(FILE, format!("yields token {id}, config.json says vocab_size {}", self.vocab_size)))
            }
        }
    }

    /// As lm-eval encodes a prompt: special tokens, unless the text already begins with the first one.
    pub(super) fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let begun = self.first.as_ref().is_some_and(|(_, first)| text.starts_with(first.as_str()));
        self.encode(text, !begun)
    }

    /// What stands before a text that has nothing before it: the beginning-of-sequence token, else the end-of-sequence.
    pub(super) fn first_token(&self) -> Result<u32, Error> {
        let known = self.first.as_ref().map(|(id, _)| *id);
        known.ok_or_else(|| Error::invalid(CONFIG_FILE, "names no bos_token and no eos_token of tokenizer.json"))
    }
}

/// What the library makes of the file. It takes for granted that a file is whole and fits together, and panics over one that
/// is not.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let broken_off = |_| Err("the tokenizers library broke off over it; the log says where".into());
    // What it was at is not used again: the job ends.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(broken_off)
}

/// The text of the first token; both forms of the file are in use, a string and an object.
fn first_token(folder: &Path) -> Option<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join(CONFIG_FILE)).ok()?).ok()?;
    let text = |name: &str| {
        let token = config.get(name)?;
        Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
    };
    text("bos_token").or_else(|| text("eos_token"))
}
