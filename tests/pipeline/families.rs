//! Every family of decoders against what torch and transformers computed on a random model of it: logits, block
//! influence, loss, singular values and their gradients. llama3-rope: untied head, llama3 rotary scaling; mistral:
//! sliding window of 16; qwen2: biases, tied head, nine shards; qwen3: normalised queries and keys, wide heads.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor};
use graspd::{
    checkpoint::Weights,
    job::spec::Projection,
    linalg::thin_svd,
    model::{Batch, Config, Decoder, GradientSink, accumulate, cosine_similarities},
};
use serde_json::Value;

use super::support::{fixtures, in_memory};

const LAYERS: usize = 4;

/// Collects gyᵀ x of every projection of a layer.
#[derive(Default)]
struct Gradients(HashMap<&'static str, Tensor>);

impl GradientSink for Gradients {
    fn accept(&mut self, projection: Projection, x: &Tensor, gy: &Tensor) -> Result<()> {
        let product = gy.t()?.matmul(x)?;
        let sum = match self.0.remove(projection.path()) {
            Some(sum) => accumulate(sum, &product)?,
            None => product,
        };
        self.0.insert(projection.path(), sum);
        Ok(())
    }
}

fn largest(x: &Tensor) -> f32 {
    x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn check(family: &str) {
    let folder = fixtures().join("families").join(family);
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join(format!("golden/{family}.json"))).unwrap()).unwrap();
    let tensors =
        candle_core::safetensors::load(fixtures().join(format!("golden/{family}.safetensors")), &Device::Cpu).unwrap();
    let (config, _) = Config::read(&folder).unwrap();
    let weights = std::sync::Arc::new(Weights::open(&folder).unwrap());
    let decoder = Decoder::load(&weights, &config, 48, in_memory(), &mut |_, _| Ok(())).unwrap();
    let ids: Vec<Vec<i64>> = tensors["input_ids"].to_vec2().unwrap();
    let ids: Vec<Vec<u32>> = ids.iter().map(|row| row.iter().map(|&id| u32::try_from(id).unwrap()).collect()).collect();
    let windows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let batch = Batch { windows: windows.len(), length: windows[0].len() };

    let mut hidden = decoder.embed(&windows).unwrap();
    let mut saved = Vec::new();
    for (layer, expected) in golden["block_influence"].as_array().unwrap().iter().enumerate() {
        let (after, kept) = decoder.block(layer).unwrap().forward_saving(&hidden, batch, &decoder.rotary).unwrap();
        let cosines = cosine_similarities(&hidden, &after).unwrap();
        let influence = 1.0 - cosines.iter().sum::<f64>() / cosines.len() as f64;
        assert!(
            (influence - expected.as_f64().unwrap()).abs() < 1e-4,
            "{family}: block influence of layer {layer}: {influence}, torch {expected}"
        );
        saved.push(kept);
        hidden = after;
    }
    let logits = decoder.head.logits(&hidden).unwrap().reshape(tensors["logits"].shape()).unwrap();
    let worst = largest(&(logits - &tensors["logits"]).unwrap());
    assert!(worst < 1e-3, "{family}: logits differ by {worst}");
    let losses = decoder.head.losses(&hidden, &windows, true).unwrap();
    let loss = losses.tokens.iter().sum::<f64>() / losses.tokens.len() as f64;
    assert!((loss - golden["mean_loss"].as_f64().unwrap()).abs() < 1e-3, "{family}: loss {loss}");

    let mut gradient = losses.gradient.unwrap();
    for layer in (0..LAYERS).rev() {
        let mut sink = Gradients::default();
        gradient = decoder
            .block(layer)
            .unwrap()
            .backward(&saved[layer], &gradient, batch, &decoder.rotary, &mut sink)
            .unwrap();
        for projection in Projection::ALL {
            let name = graspd::model::module_name(layer, projection.path());
            if let Some(sigma) = tensors.get(&format!("{name}.sigma")) {
                let weight = decoder.block(layer).unwrap().projection(projection).matrix.to_dense().unwrap();
                let expected = (numbers(sigma), numbers(&tensors[&format!("{name}.sigma_grad")]));
                check_triplets(&format!("{family} {name}"), &weight, &sink.0[projection.path()], expected);
            }
        }
    }
}

fn check_triplets(name: &str, weight: &Tensor, gradient: &Tensor, (sigma, sigma_gradient): (Vec<f32>, Vec<f32>)) {
    let (rows, columns) = weight.dims2().unwrap();
    let svd = thin_svd(&numbers(weight), rows, columns).unwrap();
    let worst = svd.sigma.iter().zip(&sigma).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-5 * f64::from(sigma[0]), "{name}: σ differs by {worst}");
    let found = svd.sigma_gradient(&numbers(gradient));
    let error: f64 = found.iter().zip(&sigma_gradient).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>().sqrt();
    let size: f64 = sigma_gradient.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>().sqrt();
    assert!(error < 1e-3 * size, "{name}: ∂L/∂σ differs by {error} of {size}");
}

#[test]
fn llama_with_llama3_rope_and_an_untied_head_is_that_of_transformers() {
    check("llama3-rope");
}

#[test]
fn mistral_with_a_sliding_window_is_that_of_transformers() {
    check("mistral");
}

#[test]
fn qwen2_with_biases_in_nine_shards_is_that_of_transformers() {
    check("qwen2");
}

#[test]
fn qwen3_with_normalised_queries_and_keys_is_that_of_transformers() {
    check("qwen3");
}
