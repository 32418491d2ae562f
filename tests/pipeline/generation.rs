//! Generation with kept keys and values against whole forward passes, and its figures in a report.

use std::{path::Path, sync::Arc};

use graspd::{
    checkpoint::Weights,
    eval::Generation,
    model::{Batch, Config, Decoder},
};
use serde_json::json;

use super::support::{Job, fixtures, in_memory};

const PROMPT: usize = 70;
const GENERATED: usize = 12;

fn decoder(folder: &Path) -> Decoder {
    let (config, _) = Config::read(folder).unwrap();
    let weights = Arc::new(Weights::open(folder).unwrap());
    Decoder::load(&weights, &config, PROMPT + GENERATED, in_memory(), &mut |_, _| Ok(())).unwrap()
}

/// The likeliest token behind `tokens`, from a pass over all of them.
fn likeliest(decoder: &Decoder, tokens: &[u32]) -> u32 {
    let batch = Batch { windows: 1, length: tokens.len() };
    let hidden = decoder.forward(decoder.embed(&[tokens]).unwrap(), 0..decoder.num_layers(), batch).unwrap();
    let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
    decoder.head.logits(&last).unwrap().squeeze(0).unwrap().argmax(0).unwrap().to_scalar().unwrap()
}

/// The prompt is longer than a tile of attention and than mistral's sliding window of 16.
fn check(folder: &Path) {
    let decoder = decoder(folder);
    let mut tokens: Vec<u32> = (0..PROMPT).map(|index| (index * 37 % decoder.config.vocab_size) as u32).collect();
    let mut text = Generation::begin(&decoder, &tokens, PROMPT + GENERATED, &mut || Ok(())).unwrap();
    for _ in 0..GENERATED {
        let token = text.step(&mut || Ok(())).unwrap();
        assert_eq!(token, likeliest(&decoder, &tokens), "{} behind {} tokens", folder.display(), tokens.len());
        tokens.push(token);
    }
    assert!(text.step(&mut || Ok(())).is_err(), "the cache is full");
}

#[test]
fn greedy_tokens_are_the_likeliest_of_whole_passes_in_every_family() {
    for family in ["families/llama3-rope", "families/mistral", "families/qwen2", "families/qwen3", "tiny-llama"] {
        check(&fixtures().join(family));
    }
}

#[test]
fn a_factored_model_generates_too_and_the_report_says_how_fast() {
    let job = Job::new(&json!({
        "model": "file:tiny-llama",
        "calibration": {"dataset": "file:calibration", "selection": "first", "samples": 4, "sequence_length": 64},
        "grasp": {"layers": 3, "retain_ratio": 0.3},
        "evaluation": {"perplexity": ["file:evaluation"], "window": 128, "limit": 2},
    }));
    let report = job.run();
    let inference = report.evaluation.unwrap().inference.unwrap();
    let before = inference.before.unwrap();
    for (figures, parameters) in [(before, report.parameters.before), (inference.after, report.parameters.after)] {
        assert_eq!((figures.parameters, figures.weight_bytes), (parameters, 4 * parameters));
        assert_eq!(figures.prompt_tokens, 512);
        assert!(figures.generated_tokens > 0 && figures.generated_tokens_per_second > 0.0);
        assert!(figures.prefill_tokens_per_second > 0.0 && figures.peak_memory_bytes > figures.weight_bytes);
    }
    check(&job.output());
}
