//! Gradients and steps of training: against torch's `AdamW`, and against differences of the loss.

use candle_core::{Device, Tensor};
use graspd::{
    checkpoint::Weights,
    job::spec::Projection,
    model::{
        AdamW, Adapter, Batch, Collect, Config, Decoder, Dropout, Factors, Gradients, Matrix, Moments, Parameter,
        Round, Scope, Side,
    },
};
use serde_json::Value;

use super::support::{fixtures, in_memory};

fn decoder(longest: usize) -> Decoder {
    let folder = fixtures().join("tiny-llama");
    let (config, _) = Config::read(&folder).unwrap();
    let weights = std::sync::Arc::new(Weights::open(&folder).unwrap());
    Decoder::load(&weights, &config, longest, in_memory(), &mut |_, _| Ok(())).unwrap()
}

/// Mean loss over all scored tokens, and the gradients of the layers `layers` where they are asked for.
fn pass(
    decoder: &Decoder,
    windows: &[&[u32]],
    layers: std::ops::Range<usize>,
    scope: Option<Scope>,
) -> (f64, Gradients) {
    let batch = Batch { windows: windows.len(), length: windows[0].len() };
    let mut hidden = decoder.forward(decoder.embed(windows).unwrap(), 0..layers.start, batch).unwrap();
    let mut saved = Vec::new();
    for layer in layers.start..decoder.num_layers() {
        let (after, kept) = decoder.block(layer).unwrap().forward_saving(&hidden, batch, &decoder.rotary).unwrap();
        saved.push(kept);
        hidden = after;
    }
    let scored = |index: &usize| index % batch.length != batch.length - 1;
    let positions: Vec<u32> = (0..batch.tokens()).filter(scored).map(|index| u32::try_from(index).unwrap()).collect();
    let all = windows.concat();
    let targets: Vec<u32> = positions.iter().map(|&position| all[position as usize + 1]).collect();
    let weight = scope.map(|_| 1.0 / targets.len() as f32);
    let losses = decoder.head.losses_at(&hidden, &positions, &targets, weight).unwrap();
    let mut sums = Gradients::default();
    if let (Some(scope), Some(mut gradient)) = (scope, losses.gradient) {
        for layer in (layers.start..decoder.num_layers()).rev() {
            let block = &*decoder.block(layer).unwrap();
            let saved = saved.pop().unwrap();
            gradient = match layers.contains(&layer) {
                true => {
                    let mut sink = Collect { block, layer, scope, sums: &mut sums };
                    block.backward(&saved, &gradient, batch, &decoder.rotary, &mut sink).unwrap()
                }
                false => block.backward(&saved, &gradient, batch, &decoder.rotary, &mut ()).unwrap(),
            };
        }
    }
    (losses.tokens.iter().sum::<f64>() / losses.tokens.len() as f64, sums)
}

fn parameters(decoder: &Decoder, layers: std::ops::Range<usize>, scope: Scope) -> Vec<(usize, Parameter, Tensor)> {
    let of =
        |layer: usize| decoder.block(layer).unwrap().parameters(scope).into_iter().map(move |(p, x)| (layer, p, x));
    layers.flat_map(of).collect()
}

#[test]
fn five_steps_of_full_training_are_those_of_torch() {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("golden/tiny-llama.adamw.json")).unwrap()).unwrap();
    let tensors =
        candle_core::safetensors::load(fixtures().join("golden/tiny-llama.sample.safetensors"), &Device::Cpu).unwrap();
    let ids: Vec<Vec<i64>> = tensors["input_ids"].to_vec2().unwrap();
    let ids: Vec<Vec<u32>> = ids.iter().map(|row| row.iter().map(|&id| u32::try_from(id).unwrap()).collect()).collect();
    let windows: Vec<&[u32]> = ids[..4].iter().map(Vec::as_slice).collect();
    let losses: Vec<f64> = serde_json::from_value(golden["loss_before_each_step_and_after_the_last"].clone()).unwrap();
    let norms: Vec<f64> = serde_json::from_value(golden["gradient_norm"].clone()).unwrap();
    let decoder = decoder(128);
    let parameters = parameters(&decoder, 2..5, Scope::Full);
    let moments: Vec<Moments> = parameters.iter().map(|(_, _, x)| Moments::new(x).unwrap()).collect();
    for (step, (expected, norm)) in losses.iter().zip(&norms).enumerate() {
        let (loss, gradients) = pass(&decoder, &windows, 2..5, Some(Scope::Full));
        assert!((loss - expected).abs() < 1e-3, "loss before step {step}: {loss}, torch {expected}");
        let found = gradients.norm().unwrap();
        assert!((found - norm).abs() < 1e-3, "gradient norm of step {step}: {found}, torch {norm}");
        let gradient_scale = (1.0 / (found + 1e-6)).min(1.0);
        let adamw = AdamW { step: step + 1, learning_rate: 3e-4, weight_decay: 0.01, gradient_scale };
        for ((layer, parameter, x), moments) in parameters.iter().zip(&moments) {
            adamw.apply(x, moments, gradients.get(*layer, *parameter).unwrap()).unwrap();
        }
    }
    let last = pass(&decoder, &windows, 2..5, None).0;
    assert!((last - losses[5]).abs() < 1e-3, "loss after the last step: {last}, torch {}", losses[5]);
}

/// Numbers that look random and are the same every time.
fn numbers(shape: [usize; 2], seed: usize, size: f64) -> Tensor {
    let number = |index: usize| ((((index + 1) * 7919 * (seed + 3)) % 10_007) as f64 / 5_003.5 - 1.0) * size;
    let data: Vec<f32> = (0..shape[0] * shape[1]).map(|index| number(index) as f32).collect();
    Tensor::from_vec(data, &shape, &Device::Cpu).unwrap()
}

/// Replaces a matrix by two factors, so that both kinds are trained below.
fn factor(decoder: &mut Decoder, layer: usize, projection: Projection, rank: usize) {
    let [out, input] = decoder.config.projection_shape(projection);
    let factors = Factors { input: numbers([rank, input], 5, 0.1), output: numbers([out, rank], 6, 0.1) };
    decoder.replace(layer, projection, Matrix::Factored(factors)).unwrap();
}

fn adapt(decoder: &mut Decoder, layers: std::ops::Range<usize>, round: &Round) {
    let mut stream = 0;
    for layer in layers {
        for projection in Projection::ALL {
            let linear = decoder.block_mut(layer).unwrap().projection_mut(projection);
            let shapes: Vec<[usize; 2]> = match &linear.matrix {
                Matrix::Dense(w) => vec![[w.dim(0).unwrap(), w.dim(1).unwrap()]],
                Matrix::Factored(Factors { input, output }) => vec![
                    [input.dim(0).unwrap(), input.dim(1).unwrap()],
                    [output.dim(0).unwrap(), output.dim(1).unwrap()],
                ],
            };
            for [out, input] in shapes {
                stream += 1;
                linear.adapters.push(Adapter {
                    down: numbers([4, input], stream, 0.3),
                    up: numbers([out, 4], stream + 1, 0.3),
                    scale: 0.7,
                    dropout: Dropout::new(0.2, stream as u64, round.clone()),
                });
            }
        }
    }
}

#[test]
fn gradients_of_adapters_are_differences_of_the_loss() {
    let mut decoder = decoder(24);
    let round = Round::default();
    for projection in [Projection::QProj, Projection::DownProj, Projection::UpProj] {
        factor(&mut decoder, 5, projection, 12);
    }
    adapt(&mut decoder, 5..7, &round);
    let ids: Vec<u32> = (0..48).map(|index| (index * 37 + 5) % 2048).collect();
    let windows: Vec<&[u32]> = ids.chunks(24).collect();
    // Dropout is on and the same in every pass.
    round.begin(77);
    let (_, gradients) = pass(&decoder, &windows, 5..7, Some(Scope::Adapters));
    let parameters = parameters(&decoder, 5..7, Scope::Adapters);
    assert_eq!(parameters.len(), 2 * (7 + 7 + 3), "A and B of every matrix");
    for (index, (layer, parameter, x)) in parameters.iter().enumerate() {
        let gradient = gradients.get(*layer, *parameter).unwrap();
        let size = gradient.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
        // Along the gradient itself and along another direction.
        for along in [gradient.clone(), numbers([x.dim(0).unwrap(), x.dim(1).unwrap()], index, f64::from(size) * 0.05)]
        {
            let expected = f64::from((gradient * &along).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
            let reach = f64::from(along.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap());
            let step = 0.1 / reach;
            let original = x.copy().unwrap();
            let at = |step: f64| {
                x.slice_set(&(&original + (&along * step).unwrap()).unwrap(), 0, 0).unwrap();
                pass(&decoder, &windows, 5..7, None).0
            };
            let found = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            // The loss is a mean of single-precision numbers around 7.
            let allowed = 0.02 * expected.abs().max(0.1 * f64::from(size) * reach) + 1e-6 / step;
            assert!((found - expected).abs() < allowed, "layer {layer} {parameter:?}: {found}, gradient {expected}");
        }
    }
}

#[test]
fn a_merged_adapter_keeps_the_shape_and_the_function() {
    let mut decoder = decoder(24);
    factor(&mut decoder, 5, Projection::DownProj, 12);
    adapt(&mut decoder, 5..6, &Round::default());
    let ids: Vec<u32> = (0..24).map(|index| (index * 37 + 5) % 2048).collect();
    let before = pass(&decoder, &[&ids], 5..6, None).0;
    let block = decoder.block_mut(5).unwrap();
    for projection in Projection::ALL {
        let linear = block.projection_mut(projection);
        let merged = linear.merged().unwrap();
        assert_eq!(merged.shape().unwrap(), linear.matrix.shape().unwrap());
        assert_eq!(matches!(merged, Matrix::Factored(_)), projection == Projection::DownProj);
        linear.matrix = merged;
        linear.adapters.clear();
    }
    assert!(block.parameters(Scope::Adapters).is_empty());
    assert!(block.parameters(Scope::Full).iter().any(|(parameter, x)| {
        *parameter == Parameter::Weight(Projection::DownProj, Side::Input) && x.dims() == [12, 352]
    }));
    let after = pass(&decoder, &[&ids], 5..6, None).0;
    assert!((before - after).abs() < 1e-5, "{before} with adapters, {after} merged");
}
