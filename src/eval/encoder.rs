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
/// Which token ends a text, the first of them that says so.
const END_FILES: [&str; 2] = ["generation_config.json", "config.json"];
/// What transformers joins in a decoded text, where the tokenizer's `clean_up_tokenization_spaces` says so.
const JOINED: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// The tokenizer of a model folder.
pub struct Encoder {
    tokenizer: Tokenizer,
    vocab_size: usize,
    /// The token that stands before everything, else the one that ends a text; and its text.
    first: Option<(u32, String)>,
    ends: Vec<u32>,
    joins: bool,
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
        let config = read_json(&folder.join(CONFIG_FILE));
        let special = |name: &str| special_token(&config, name);
        let first = special("bos_token").or_else(|| special("eos_token"));
        let first = first.and_then(|text| Some((tokenizer.token_to_id(&text)?, text)));
        let own_end = special("eos_token").and_then(|text| tokenizer.token_to_id(&text));
        let ends = end_tokens(folder).into_iter().chain(own_end).collect();
        let joins = config["clean_up_tokenization_spaces"] == Value::Bool(true);
        Ok(Self { tokenizer, vocab_size, first, ends, joins })
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

    /// The text of tokens, special ones left out, as transformers decodes it.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        let text = guarded(|| self.tokenizer.decode(tokens, true));
        let text = text.map_err(|error| Error::invalid(FILE, format!("cannot decode tokens: {error}")))?;
        let joined = |text: String, (apart, together): &(&str, &str)| text.replace(apart, together);
        Ok(if self.joins { JOINED.iter().fold(text, joined) } else { text })
    }

    /// The tokens that end a text: those of the model, and the tokenizer's own.
    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
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

/// The text of a special token; both forms of the file are in use, a string and an object.
fn special_token(config: &Value, name: &str) -> Option<String> {
    let token = config.get(name)?;
    Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
}

/// The model's `eos_token_id`, a number or several.
fn end_tokens(folder: &Path) -> Vec<u32> {
    let named = END_FILES.iter().filter_map(|file| read_json(&folder.join(file)).get("eos_token_id").cloned());
    let tokens = |value: Value| value.as_array().map_or_else(|| vec![value.clone()], Clone::clone);
    let tokens = named.filter(|value| !value.is_null()).map(tokens).next().unwrap_or_default();
    tokens.iter().filter_map(|token| u32::try_from(token.as_u64()?).ok()).collect()
}

/// What a file says; nothing where it is missing or wrong.
fn read_json(path: &Path) -> Value {
    std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
