//! `config.json` of a checkpoint. A factored model gets a model type of its own, so that a loader that does not know
//! the factors fails instead of filling the matrices with random numbers; its `auto_map` names the classes that do.

use serde_json::{Map, Value, json};

use super::{Changes, Target, names::renumbered};
use crate::{job::spec::ExportType, model::config::FACTORED_PREFIX};

/// The key with the rank of every factored module.
const RANKS: &str = "truncation_ranks";
/// The prefix of graspd's own class names.
const CLASS_PREFIX: &str = "Grasp";

/// Content of the file, from the source's; `architecture` is the stock one, such as `LlamaForCausalLM`.
pub(super) fn config(source: &Value, architecture: &str, changes: &Changes, target: Target) -> Value {
    let mut fields = source.as_object().cloned().unwrap_or_default();
    let ranks = ranks(&fields, changes, target);
    // Of the source's own: its code is not copied, and the model's type says it all.
    fields.remove("auto_map");
    name_classes(&mut fields, architecture, !ranks.is_empty());
    match ranks.is_empty() {
        true => fields.remove(RANKS),
        false => fields.insert(RANKS.to_owned(), Value::Object(ranks)),
    };
    remove_layers(&mut fields, &changes.removed);
    if let Some(dtype) = target.dtype {
        let key = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        fields.insert(key.to_owned(), json!(name_of(dtype)));
    }
    Value::Object(fields)
}

/// Ranks of the factored modules by their new names.
fn ranks(fields: &Map<String, Value>, changes: &Changes, target: Target) -> Map<String, Value> {
    if target.is_dense() {
        return Map::new();
    }
    let mut ranks = fields.get(RANKS).and_then(Value::as_object).cloned().unwrap_or_default();
    ranks.extend(changes.factors.iter().map(|(module, factors)| (module.clone(), json!(factors.rank))));
    ranks.into_iter().filter_map(|(module, rank)| Some((renumbered(&module, &changes.removed)?, rank))).collect()
}

fn name_classes(fields: &mut Map<String, Value>, architecture: &str, factored: bool) {
    let stock = fields.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let stock = stock.strip_prefix(FACTORED_PREFIX).unwrap_or(stock).to_owned();
    if !factored {
        fields.insert("model_type".to_owned(), json!(stock));
        fields.insert("architectures".to_owned(), json!([architecture]));
        return;
    }
    let family = architecture.strip_suffix("ForCausalLM").unwrap_or(architecture);
    fields.insert("model_type".to_owned(), json!(format!("{FACTORED_PREFIX}{stock}")));
    fields.insert("architectures".to_owned(), json!([format!("{CLASS_PREFIX}{architecture}")]));
    let auto_map = json!({
        "AutoConfig": format!("configuration_grasp.{CLASS_PREFIX}{family}Config"),
        "AutoModel": format!("modeling_grasp.{CLASS_PREFIX}{family}Model"),
        "AutoModelForCausalLM": format!("modeling_grasp.{CLASS_PREFIX}{architecture}"),
    });
    fields.insert("auto_map".to_owned(), auto_map);
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
}

/// As transformers calls a type.
const fn name_of(dtype: ExportType) -> &'static str {
    match dtype {
        ExportType::F32 => "float32",
        ExportType::Bf16 => "bfloat16",
        ExportType::F16 => "float16",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{job::spec::ExportFormat, pipeline::factorize::FactorNumbers};

    fn written(config: &Value, changes: &Changes, format: ExportFormat, dtype: Option<ExportType>) -> Value {
        super::config(config, "LlamaForCausalLM", changes, Target { format, dtype })
    }

    fn changes(removed: Vec<usize>, factored: &[&str]) -> Changes {
        let factors = Arc::new(FactorNumbers { rank: 2, input: vec![0.0; 4], output: vec![0.0; 4] });
        let factors = factored.iter().map(|name| ((*name).to_owned(), Arc::clone(&factors)));
        Changes { factors: factors.collect::<BTreeMap<_, _>>(), removed, trained: BTreeMap::new(), tied: true }
    }

    #[test]
    fn a_factored_config_cannot_be_taken_for_a_stock_one() {
        let source = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4});
        let compress = changes(vec![], &["model.layers.3.mlp.up_proj"]);
        let once = written(&source, &compress, ExportFormat::Factored, None);
        assert_eq!(once["model_type"], "grasp_llama");
        assert_eq!(once["architectures"][0], "GraspLlamaForCausalLM");
        assert_eq!(once["auto_map"]["AutoModel"], "modeling_grasp.GraspLlamaModel");
        assert_eq!(once["truncation_ranks"]["model.layers.3.mlp.up_proj"], 2);
        let twice = written(&once, &changes(vec![0], &[]), ExportFormat::Factored, None);
        assert_eq!(twice["model_type"], "grasp_llama");
        assert_eq!(twice["num_hidden_layers"], 3);
        assert_eq!(twice["truncation_ranks"], json!({"model.layers.2.mlp.up_proj": 2}));
        let back = written(&once, &changes(vec![], &[]), ExportFormat::Dense, None);
        assert_eq!(back, source);
    }

    #[test]
    fn a_type_that_is_asked_for_is_named_under_the_key_of_the_source() {
        let changes = changes(vec![], &[]);
        for (key, other) in [("torch_dtype", "dtype"), ("dtype", "torch_dtype")] {
            let config = json!({"model_type": "llama", "num_hidden_layers": 1, key: "bfloat16"});
            let found = written(&config, &changes, ExportFormat::Factored, Some(ExportType::F32));
            assert_eq!((&found[key], &found[other]), (&json!("float32"), &Value::Null));
        }
    }
}
