//! Stage 6: the compressed checkpoint as a folder: weights, config, tokenizer files byte for byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::{Error, factorize::FactorNumbers};
use crate::{
    checkpoint::{self, LARGEST_SHARD, Pending, TensorEntry, Weights, narrow, write_safetensors},
    model::{config::FACTORED_PREFIX, factor_names, module_name},
};

/// Files that are copied as they are, where the source has them.
const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// What changes between source and checkpoint.
pub(super) struct Changes {
    /// New factors by module name.
    pub(super) factors: BTreeMap<String, Arc<FactorNumbers>>,
    /// Layers that are deleted, ascending.
    pub(super) removed: Vec<usize>,
    /// Whether the head is the embedding, so that a copy of it in the source is dropped.
    pub(super) tied: bool,
}

/// The folder a checkpoint is made from.
pub(super) struct Source<'a> {
    pub(super) folder: &'a Path,
    pub(super) weights: &'a Weights,
    /// Content of config.json.
    pub(super) config: &'a Value,
}

/// Writes the whole folder but the report; returns the bytes of the weights.
pub(super) fn write(
    source: &Source<'_>,
    changes: &Changes,
    output: &Path,
    observe: &mut dyn FnMut(u64, u64) -> Result<(), Error>,
) -> Result<u64, Error> {
    let tensors = tensors(source.weights, changes)?;
    let total = tensors.len() as u64;
    let mut done = 0;
    let mut ended = None;
    let bytes = write_safetensors(output, tensors, LARGEST_SHARD, || {
        done += 1;
        observe(done, total).map_err(|error| {
            ended = Some(error);
            checkpoint::Error::Cancelled
        })
    });
    let bytes = bytes.map_err(|error| ended.take().unwrap_or_else(|| error.into()))?;
    let path = output.join("config.json");
    fs::write(&path, format!("{:#}\n", config(source.config, changes))).map_err(checkpoint::Error::io(&path))?;
    for name in COMPANIONS {
        let from = source.folder.join(name);
        if from.is_file() {
            fs::copy(&from, output.join(name)).map_err(checkpoint::Error::io(&from))?;
        }
    }
    Ok(bytes)
}

/// The tensors of the checkpoint, in the order they are written: wide types first, so that every one is aligned.
fn tensors<'a>(weights: &'a Weights, changes: &'a Changes) -> Result<Vec<Pending<'a>>, Error> {
    let mut tensors = Vec::new();
    let mut written = BTreeSet::new();
    for (name, entry) in weights.iter() {
        let Some(place) = place(name, changes) else { continue };
        match place {
            Place::Copied(new) => tensors.push(Pending {
                name: new,
                dtype: entry.dtype,
                shape: entry.shape.clone(),
                bytes: Box::new(move || weights.bytes(name)),
            }),
            // A module that was factored before has two tensors but gets one new pair.
            Place::Replaced { module, new } => {
                if written.insert(module) {
                    tensors.extend(pair(&changes.factors[module], entry, &new, module, weights)?);
                }
            }
        }
    }
    tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    Ok(tensors)
}

/// Where a tensor of the source goes.
enum Place<'a> {
    Copied(String),
    Replaced { module: &'a str, new: String },
}

fn place<'a>(name: &'a str, changes: &Changes) -> Option<Place<'a>> {
    if changes.tied && name == "lm_head.weight" {
        return None;
    }
    let new = renumbered(name, &changes.removed)?;
    let Some((module, part)) = name.rsplit_once('.') else { return Some(Place::Copied(new)) };
    let module = module.strip_suffix(".InLinear").or_else(|| module.strip_suffix(".OutLinear")).unwrap_or(module);
    if !changes.factors.contains_key(module) {
        return Some(Place::Copied(new));
    }
    let new_module = renumbered(module, &changes.removed)?;
    match part {
        "weight" => Some(Place::Replaced { module, new: new_module }),
        part => Some(Place::Copied(format!("{new_module}.OutLinear.{part}"))),
    }
}

/// The name with its layer's new index; `None` for a tensor of a removed layer.
fn renumbered(name: &str, removed: &[usize]) -> Option<String> {
    let Some((index, rest)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return Some(name.to_owned());
    };
    let Ok(index) = index.parse::<usize>() else { return Some(name.to_owned()) };
    if removed.contains(&index) {
        return None;
    }
    Some(module_name(index - removed.iter().filter(|&&gone| gone < index).count(), rest))
}

fn pair<'a>(
    factors: &'a Arc<FactorNumbers>,
    entry: &TensorEntry,
    new: &str,
    module: &str,
    weights: &Weights,
) -> Result<[Pending<'a>; 2], Error> {
    let [out, input] = module_shape(module, entry, weights)?;
    let k = factors.rank;
    let dtype = entry.dtype;
    let (input_name, output_name) = factor_names(new);
    let pending = |name, shape, numbers: fn(&FactorNumbers) -> &[f32]| Pending {
        name,
        dtype,
        shape,
        bytes: Box::new(move || narrow(numbers(factors), dtype)),
    };
    Ok([
        pending(input_name, vec![k, input], |factors| &factors.input),
        pending(output_name, vec![out, k], |factors| &factors.output),
    ])
}

/// `[out, in]` of a module, dense or factored.
fn module_shape(module: &str, entry: &TensorEntry, weights: &Weights) -> Result<[usize; 2], Error> {
    let (input, output) = factor_names(module);
    let shape = match (weights.get(&input), weights.get(&output)) {
        (Some(input), Some(output)) => output.shape.first().copied().zip(input.shape.get(1).copied()),
        _ => entry.shape.first().copied().zip(entry.shape.get(1).copied()),
    };
    shape.map(|(out, input)| [out, input]).ok_or_else(|| Error::internal(format!("{module} is no matrix")))
}

/// Type of the numbers of a module's weight, dense or factored.
pub(super) fn module_dtype(module: &str, weights: &Weights) -> Option<Dtype> {
    weights.get(&format!("{module}.weight")).or_else(|| weights.get(&factor_names(module).0)).map(|entry| entry.dtype)
}

/// config.json of the checkpoint. A factored model gets a model type of its own, so that a loader that does not know
/// the factors fails instead of filling the matrices with random numbers.
fn config(source: &Value, changes: &Changes) -> Value {
    let mut config = source.clone();
    let Value::Object(fields) = &mut config else { return config };
    if !changes.factors.is_empty() {
        mark_factored(fields);
        let ranks = fields.entry("truncation_ranks").or_insert_with(|| json!({}));
        for (module, factors) in &changes.factors {
            ranks[module.as_str()] = json!(factors.rank);
        }
    }
    if !changes.removed.is_empty() {
        remove_layers(fields, &changes.removed);
    }
    config
}

fn mark_factored(fields: &mut Map<String, Value>) {
    let prefixed = |name: &Value, prefix: &str| match name.as_str() {
        Some(name) if !name.starts_with(prefix) => json!(format!("{prefix}{name}")),
        _ => name.clone(),
    };
    if let Some(model_type) = fields.get_mut("model_type") {
        *model_type = prefixed(model_type, FACTORED_PREFIX);
    }
    if let Some(Value::Array(architectures)) = fields.get_mut("architectures") {
        for name in architectures {
            *name = prefixed(name, "Grasp");
        }
    }
}

fn remove_layers(fields: &mut Map<String, Value>, removed: &[usize]) {
    if let Some(layers) = fields.get("num_hidden_layers").and_then(Value::as_u64) {
        fields.insert("num_hidden_layers".to_owned(), json!(layers - removed.len() as u64));
    }
    if let Some(Value::Array(types)) = fields.get_mut("layer_types") {
        let mut index = 0;
        types.retain(|_| {
            index += 1;
            !removed.contains(&(index - 1))
        });
    }
    if let Some(Value::Object(ranks)) = fields.get_mut("truncation_ranks") {
        *ranks = ranks.iter().filter_map(|(module, rank)| Some((renumbered(module, removed)?, rank.clone()))).collect();
    }
}

/// Parameters of a checkpoint: all its numbers, a tied head once, tables of angles not at all.
pub(super) fn count_parameters(weights: &Weights, tied: bool) -> u64 {
    let counted = |name: &str| !name.ends_with("rotary_emb.inv_freq") && (name != "lm_head.weight" || !tied);
    weights.iter().filter(|(name, _)| counted(name)).map(|(_, entry)| entry.elements()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(removed: Vec<usize>, factored: &[&str]) -> Changes {
        let factors = Arc::new(FactorNumbers { rank: 2, input: vec![0.0; 4], output: vec![0.0; 4] });
        Changes {
            factors: factored.iter().map(|name| ((*name).to_owned(), Arc::clone(&factors))).collect(),
            removed,
            tied: true,
        }
    }

    fn copied(name: &str, changes: &Changes) -> Option<String> {
        match place(name, changes)? {
            Place::Copied(new) => Some(new),
            Place::Replaced { new, .. } => Some(format!("pair of {new}")),
        }
    }

    #[test]
    fn names_follow_their_layer_and_biases_their_factor() {
        let changes = changes(vec![1, 2], &["model.layers.3.self_attn.q_proj"]);
        for (name, expected) in [
            ("model.layers.0.input_layernorm.weight", Some("model.layers.0.input_layernorm.weight")),
            ("model.layers.1.input_layernorm.weight", None),
            ("model.layers.3.mlp.up_proj.weight", Some("model.layers.1.mlp.up_proj.weight")),
            ("model.layers.3.self_attn.q_proj.weight", Some("pair of model.layers.1.self_attn.q_proj")),
            ("model.layers.3.self_attn.q_proj.bias", Some("model.layers.1.self_attn.q_proj.OutLinear.bias")),
            ("lm_head.weight", None),
            ("model.norm.weight", Some("model.norm.weight")),
        ] {
            assert_eq!(copied(name, &changes).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_factored_config_cannot_be_taken_for_a_stock_one() {
        let source = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4});
        let once = config(&source, &changes(vec![], &["model.layers.3.mlp.up_proj"]));
        assert_eq!(once["model_type"], "grasp_llama");
        assert_eq!(once["architectures"][0], "GraspLlamaForCausalLM");
        assert_eq!(once["truncation_ranks"]["model.layers.3.mlp.up_proj"], 2);
        let twice = config(&once, &changes(vec![0], &[]));
        assert_eq!(twice["model_type"], "grasp_llama");
        assert_eq!(twice["num_hidden_layers"], 3);
        assert_eq!(twice["truncation_ranks"]["model.layers.2.mlp.up_proj"], 2);
    }
}
