//! Models of a well-known shape with random weights, for measurements: they cost what the real ones cost and say
//! nothing.

use std::{fs, path::Path, str::FromStr};

use half::bf16;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::{Config, module_name};
use crate::{
    checkpoint::{Error, Pending, write_safetensors},
    job::spec::Projection,
};

/// The largest file, in bytes, as other tools of the field write them.
const SHARD: u64 = 5_000_000_000;
/// Numbers that one random generator makes.
const CHUNK: usize = 1 << 20;
/// Largest number of a random matrix: their standard deviation is then 0.02, as at the start of a training.
const LARGEST: f32 = 0.0346;

/// The shape of a published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `llama2-7b`: 32 layers of 4,096, 6.7 billion parameters.
    Llama2Of7B,
    /// `smollm2-135m`: 30 layers of 576, 135 million parameters, tied head.
    SmolLm2Of135M,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "llama2-7b" => Ok(Self::Llama2Of7B),
            "smollm2-135m" => Ok(Self::SmolLm2Of135M),
            other => Err(format!("'{other}' is no shape: use llama2-7b or smollm2-135m")),
        }
    }
}

impl Shape {
    /// The fields of config.json that say the shape.
    fn config(self) -> Value {
        let [hidden, intermediate, layers, heads, kv_heads, vocabulary, context] = match self {
            Self::Llama2Of7B => [4096, 11008, 32, 32, 32, 32000, 4096],
            Self::SmolLm2Of135M => [576, 1536, 30, 9, 3, 49152, 8192],
        };
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self == Self::SmolLm2Of135M,
            "torch_dtype": "bfloat16",
        })
    }
}

/// Writes a model of the given shape: random bf16 weights that follow from `seed`, config.json, and a tokenizer whose
/// tokens are bytes. `observe` gets (tensors written, tensors).
///
/// # Errors
/// [`Error::Io`] when the folder cannot be written, and whatever `observe` returns.
pub fn synthesize(
    shape: Shape,
    seed: u64,
    folder: &Path,
    observe: &mut dyn FnMut(usize, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let json = shape.config();
    let config = Config::parse(&json)?;
    let tensors = tensors(&config, seed);
    let (mut done, total) = (0, tensors.len());
    write_safetensors(folder, tensors, SHARD, || {
        done += 1;
        observe(done, total)
    })?;
    for (name, content) in [("config.json", json), ("tokenizer.json", byte_tokenizer())] {
        let path = folder.join(name);
        fs::write(&path, format!("{content:#}\n")).map_err(Error::io(&path))?;
    }
    Ok(())
}

fn tensors(config: &Config, seed: u64) -> Vec<Pending<'static>> {
    let Config { vocab_size, hidden_size, num_layers, tie_word_embeddings, .. } = *config;
    let mut tensors = vec![
        random("model.embed_tokens.weight".to_owned(), vec![vocab_size, hidden_size], seed),
        ones("model.norm.weight".to_owned(), hidden_size),
    ];
    if !tie_word_embeddings {
        tensors.push(random("lm_head.weight".to_owned(), vec![vocab_size, hidden_size], seed + 1));
    }
    for layer in 0..num_layers {
        for (index, projection) in Projection::ALL.into_iter().enumerate() {
            let name = module_name(layer, &format!("{}.weight", projection.path()));
            let matrix_seed = seed + 2 + (layer * Projection::ALL.len() + index) as u64;
            tensors.push(random(name, config.projection_shape(projection).to_vec(), matrix_seed));
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push(ones(module_name(layer, &format!("{norm}.weight")), hidden_size));
        }
    }
    tensors
}

fn ones(name: String, size: usize) -> Pending<'static> {
    let bytes = move || Ok(std::iter::repeat_n(bf16::ONE.to_le_bytes(), size).flatten().collect());
    Pending { name, dtype: Dtype::BF16, shape: vec![size], bytes: Box::new(bytes) }
}

/// Numbers spread evenly around zero.
fn random(name: String, shape: Vec<usize>, seed: u64) -> Pending<'static> {
    let count: usize = shape.iter().product();
    let bytes = move || {
        let mut all = vec![0_u8; 2 * count];
        all.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(index, chunk)| {
            let mut rng = StdRng::seed_from_u64((seed << 20) + index as u64);
            rng.fill_bytes(chunk);
            for pair in chunk.as_chunks_mut::<2>().0 {
                let share = f32::from(i16::from_le_bytes(*pair)) / 32768.0;
                *pair = bf16::from_f32(share * LARGEST).to_le_bytes();
            }
        });
        Ok(all)
    };
    Pending { name, dtype: Dtype::BF16, shape, bytes: Box::new(bytes) }
}

/// A tokenizer.json whose tokens are the 256 bytes.
fn byte_tokenizer() -> Value {
    let visible = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    // Bytes without a visible character stand as characters from 256 on, in the byte-level alphabet of GPT-2.
    let mut hidden = 0x100..;
    let letter = |byte: u32| if visible(byte) { Some(byte) } else { hidden.next() };
    let letters: Vec<u32> = (0..=0xff).filter_map(letter).collect();
    let vocabulary: Map<String, Value> = letters
        .iter()
        .enumerate()
        .filter_map(|(id, &letter)| Some((char::from_u32(letter)?.to_string(), json!(id))))
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": vocabulary, "merges": []},
    })
}
