//! Logits against those of candle-transformers' own models.

use std::{path::Path, sync::Arc};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, qwen2, qwen3};
use graspd::{
    checkpoint::Weights,
    model::{Batch, Config, Decoder},
};
use serde_json::Value;

use super::support::{fixtures, in_memory};

/// config.json, the weights in f32, and the tokens [1, length] for a model of candle-transformers; gives the logits of the last token.
type Peer = fn(Value, VarBuilder<'_>, &Tensor) -> Tensor;

fn check(folder: &Path, length: u32, peer: Peer) {
    let (config, json) = Config::read(folder).unwrap();
    let vocabulary = config.vocab_size as u32;
    let window: Vec<u32> = (0..length).map(|index| (index * 37 + 5) % vocabulary).collect();
    let weights = Arc::new(Weights::open(folder).unwrap());
    let decoder = Decoder::load(&weights, &config, window.len(), in_memory(), &mut |_, _| Ok(())).unwrap();
    let batch = Batch { windows: 1, length: window.len() };
    let hidden = decoder.forward(decoder.embed(&[&window]).unwrap(), 0..decoder.num_layers(), batch).unwrap();
    let ours = decoder.head.logits(&hidden).unwrap().narrow(0, window.len() - 1, 1).unwrap();

    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    let tensors = files.iter().flat_map(|path| candle_core::safetensors::load(path, &Device::Cpu).unwrap());
    let builder = VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
    let input = Tensor::new(window, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let theirs = peer(json, builder, &input).flatten_all().unwrap();
    let difference = (ours.flatten_all().unwrap() - theirs).unwrap().abs().unwrap().max(0).unwrap();
    let worst: f32 = difference.to_scalar().unwrap();
    assert!(worst < 1e-3, "logits differ by {worst}");
}

fn family(name: &str) -> std::path::PathBuf {
    fixtures().join("families").join(name)
}

/// A field that transformers writes as null and candle-transformers wants as a number.
fn filled(mut json: Value, field: &str, value: Value) -> Value {
    json[field] = value;
    json
}

#[test]
fn the_sample_model_is_the_llama_of_candle_transformers() {
    check(&fixtures().join("tiny-llama"), 40, |json, builder, input| {
        let config = serde_json::from_value::<llama::LlamaConfig>(json).unwrap().into_config(false);
        let model = llama::Llama::load(builder, &config).unwrap();
        let mut cache = llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
        model.forward(input, 0, &mut cache).unwrap()
    });
}

// Of 16 tokens, since candle-transformers lets a sliding window of 16 see 17 positions and transformers does not.
#[test]
fn mistral_is_that_of_candle_transformers() {
    check(&family("mistral"), 16, |json, builder, input| {
        let json = filled(json, "use_flash_attn", false.into());
        let config: mistral::Config = serde_json::from_value(json).unwrap();
        mistral::Model::new(&config, builder).unwrap().forward(input, 0).unwrap()
    });
}

#[test]
fn qwen2_is_that_of_candle_transformers() {
    check(&family("qwen2"), 40, |json, builder, input| {
        let config: qwen2::Config = serde_json::from_value(filled(json, "sliding_window", 512.into())).unwrap();
        qwen2::ModelForCausalLM::new(&config, builder).unwrap().forward(input, 0).unwrap()
    });
}

#[test]
fn qwen3_is_that_of_candle_transformers() {
    check(&family("qwen3"), 40, |json, builder, input| {
        let config: qwen3::Config = serde_json::from_value(json).unwrap();
        qwen3::ModelForCausalLM::new(&config, builder).unwrap().forward(input, 0).unwrap()
    });
}
