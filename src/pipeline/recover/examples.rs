//! Records and texts as sequences of tokens, and which of them are learned from.

use std::path::Path;

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rayon::prelude::*;
use serde_json::Value;

use super::prompt::prompt;
use crate::{
    checkpoint::Error,
    eval::{Encoder, Instruction, TrainingText},
    job::spec::Recovery,
};

/// A sequence to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Example {
    /// Token ids.
    pub(super) tokens: Vec<u32>,
    /// The first token whose loss counts: not the first of all, which nothing predicts.
    pub(super) first: usize,
}

/// What is trained on, and what is kept back to validate on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Examples {
    pub(super) training: Vec<Example>,
    pub(super) validation: Vec<Example>,
    /// Records of which nothing is left to learn once they are cut to the longest length.
    pub(super) skipped: usize,
}

/// How texts become tokens.
pub(super) struct Rules<'a> {
    pub(super) recovery: &'a Recovery,
    /// Tokens of an example at most.
    pub(super) longest: usize,
    /// The token that ends an answer.
    pub(super) end: Option<u32>,
}

/// The token that ends a text, as config.json names it; the first where there are several.
pub(super) fn end_token(config: &Value) -> Option<u32> {
    let end = &config["eos_token_id"];
    end.as_u64().or_else(|| end.get(0)?.as_u64()).and_then(|id| u32::try_from(id).ok())
}

impl Examples {
    /// Tokenises the data and keeps a share of it back, chosen by the seed.
    pub(super) fn new(text: &TrainingText, folder: &Path, vocab_size: usize, rules: &Rules<'_>) -> Result<Self, Error> {
        let encoder = Encoder::open(folder, vocab_size)?;
        let (mut all, skipped) = match text {
            TrainingText::Instructions(records) => {
                let encode = |record: &Instruction| encode(record, &encoder, rules);
                let found = records.par_iter().map(encode).collect::<Result<Vec<_>, Error>>()?;
                let count = found.len();
                let all: Vec<Example> = found.into_iter().flatten().collect();
                let skipped = count - all.len();
                (all, skipped)
            }
            TrainingText::Text(text) => (windows(&encoder.encode(text, true)?, rules.longest), 0),
        };
        all.shuffle(&mut StdRng::seed_from_u64(rules.recovery.seed));
        let held = rules.recovery.validation_size.min(all.len() / 10);
        let training = all.split_off(held);
        if training.is_empty() {
            let dataset = &rules.recovery.dataset;
            return Err(Error::InvalidDataset(format!(
                "{dataset} holds nothing to train on: no record has an answer within recovery.max_length tokens"
            )));
        }
        Ok(Self { training, validation: all, skipped })
    }
}

/// The prompt and the answer are tokenised apart: a model that answers starts from the prompt's tokens as well.
fn encode(record: &Instruction, encoder: &Encoder, rules: &Rules<'_>) -> Result<Option<Example>, Error> {
    let mut tokens = encoder.encode(&prompt(rules.recovery.template, record), true)?;
    let first = if rules.recovery.train_on_inputs { 1 } else { tokens.len().max(1) };
    tokens.extend(encoder.encode(&record.output, false)?);
    tokens.extend(rules.end);
    tokens.truncate(rules.longest);
    Ok((tokens.len() > first).then_some(Example { tokens, first }))
}

/// A text in windows of one length, the last one shorter.
fn windows(tokens: &[u32], length: usize) -> Vec<Example> {
    let windows = tokens.chunks(length).filter(|window| window.len() > 1);
    windows.map(|window| Example { tokens: window.to_vec(), first: 1 }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::JobSpec;

    fn examples(text: &TrainingText, recovery: &Value, longest: usize) -> Result<Examples, Error> {
        let spec = JobSpec::parse(&json!({"model": "a/b", "recovery": recovery})).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let rules = Rules { recovery: &spec.recovery.unwrap(), longest, end: Some(1) };
        Examples::new(text, &folder, 2048, &rules)
    }

    fn records(count: usize) -> TrainingText {
        let record =
            |index| Instruction { instruction: format!("Say {index}."), input: String::new(), output: "Well.".into() };
        TrainingText::Instructions((0..count).map(record).collect())
    }

    #[test]
    fn only_the_answer_counts_and_it_ends() {
        let found = examples(&records(1), &json!({}), 256).unwrap();
        let Example { tokens, first } = &found.training[0];
        assert_eq!(tokens.last(), Some(&1));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let answer = Encoder::open(&folder, 2048).unwrap().encode("Well.", false).unwrap();
        assert_eq!(tokens[*first..tokens.len() - 1], answer);
        assert_eq!(examples(&records(1), &json!({"train_on_inputs": true}), 256).unwrap().training[0].first, 1);
    }

    #[test]
    fn a_tenth_at_most_is_kept_back_and_the_seed_chooses() {
        let sizes = |count, size: usize| {
            let found = examples(&records(count), &json!({"validation_size": size}), 256).unwrap();
            (found.training.len(), found.validation.len())
        };
        assert_eq!((sizes(50, 3), sizes(50, 2000), sizes(8, 2000)), ((47, 3), (45, 5), (8, 0)));
        let chosen = |seed: u64| examples(&records(50), &json!({"seed": seed}), 256).unwrap().validation;
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
    }

    #[test]
    fn what_is_too_long_is_cut_and_skipped_where_nothing_is_left() {
        let error = examples(&records(3), &json!({}), 8).unwrap_err().to_string();
        assert!(error.contains("recovery.max_length"), "{error}");
        let text = TrainingText::Text("One two three four five six seven eight nine ten.".into());
        let found = examples(&text, &json!({}), 4).unwrap();
        assert!(found.training.len() > 2 && found.training.iter().all(|example| example.tokens.len() <= 4));
    }

    #[test]
    fn the_end_token_is_the_first_of_several() {
        assert_eq!(end_token(&json!({"eos_token_id": [5, 6]})), Some(5));
        assert_eq!(end_token(&json!({"eos_token_id": 7})), Some(7));
        assert_eq!(end_token(&json!({})), None);
    }
}
