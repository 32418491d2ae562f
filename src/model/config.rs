//! `config.json`: read by hand, because a default that other code guesses is a wrong logit here. What is not
//! implemented is refused by name.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Error;

const FILE: &str = "config.json";
/// The prefix of the model types that graspd writes for factored checkpoints.
pub const FACTORED_PREFIX: &str = "grasp_";

/// Architectures that are implemented, as their config.json names them.
pub const ARCHITECTURES: [&str; 4] = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

/// The shape of a decoder.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of config.json")]
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// As config.json names it, without graspd's own prefix.
    pub architecture: String,
    /// `llama`, `mistral`, `qwen2` or `qwen3`.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// ε of every `RMSNorm`.
    pub rms_norm_eps: f64,
    /// Longest context.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have biases.
    pub qkv_bias: bool,
    /// Whether o has one.
    pub output_bias: bool,
    /// Whether the MLP has.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised per head.
    pub qk_norm: bool,
    /// Positions a layer looks back, its own included; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// Rotary embedding.
    pub rope: Rope,
}

/// Rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// How they are stretched.
    pub scaling: RopeScaling,
}

/// How the frequencies are stretched for long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low ones divided, high ones kept, those between blended (Llama 3.1).
    Llama3 {
        /// Divides the low frequencies.
        factor: f64,
        /// Wavelengths above original / this are low.
        low_freq_factor: f64,
        /// Wavelengths below original / this are high.
        high_freq_factor: f64,
        /// The context the model was trained on first.
        original: f64,
    },
}

/// Reads fields and says which one is wrong.
struct Fields<'a>(&'a Value);

fn invalid(what: impl Into<String>) -> Error {
    Error::invalid(FILE, what)
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn size(&self, name: &str, default: Option<usize>, most: usize) -> Result<usize, Error> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| invalid(format!("has no {name}")));
        };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|size| (1..=most).contains(size))
            .ok_or_else(|| invalid(format!("{name} is {value}: a whole number from 1 to {most} is expected")))
    }

    fn number(&self, name: &str, default: Option<f64>) -> Result<f64, Error> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| invalid(format!("has no {name}")));
        };
        value
            .as_f64()
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| invalid(format!("{name} is {value}: a positive number is expected")))
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        self.get(name).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| invalid(format!("{name} is {value}: true or false is expected")))
        })
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str)
    }
}

impl Config {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// [`Error::Invalid`] names a field that is missing or absurd, [`Error::Unsupported`] an architecture or option
    /// that is not implemented.
    pub fn read(folder: &Path) -> Result<(Self, Value), Error> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => invalid("is missing from the model's folder"),
            _ => Error::Io { path: path.clone(), source: error },
        })?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| invalid(format!("is not JSON: {error}")))?;
        Ok((Self::parse(&json)?, json))
    }

    /// Understands the content of a `config.json`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(json: &Value) -> Result<Self, Error> {
        let fields = Fields(json);
        let (architecture, model_type) = family(&fields)?;
        refuse_unknown_options(&fields)?;
        let num_layers = fields.size("num_hidden_layers", None, 4096)?;
        let hidden_size = fields.size("hidden_size", None, 1 << 17)?;
        let num_heads = fields.size("num_attention_heads", None, 4096)?;
        let num_kv_heads = fields.size("num_key_value_heads", Some(num_heads), num_heads)?;
        let head_dim = fields.size("head_dim", Some(hidden_size / num_heads), 4096)?;
        if num_heads % num_kv_heads != 0 {
            return Err(invalid(format!("{num_heads} attention heads cannot share {num_kv_heads} key-value heads")));
        }
        if head_dim % 2 != 0 {
            return Err(invalid(format!("head_dim is {head_dim}: rotary embeddings need an even one")));
        }
        let llama = model_type == "llama";
        let bias = fields.flag("attention_bias", false)?;
        Ok(Self {
            vocab_size: fields.size("vocab_size", None, 1 << 24)?,
            intermediate_size: fields.size("intermediate_size", None, 1 << 20)?,
            rms_norm_eps: fields.number("rms_norm_eps", Some(1e-6))?,
            max_position_embeddings: fields.size("max_position_embeddings", Some(2048), 1 << 30)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings", false)?,
            qkv_bias: bias || model_type == "qwen2",
            output_bias: bias && model_type != "qwen2",
            mlp_bias: llama && fields.flag("mlp_bias", false)?,
            qk_norm: model_type == "qwen3",
            windows: windows(&fields, &model_type, num_layers)?,
            rope: rope(&fields)?,
            architecture,
            model_type,
            hidden_size,
            num_layers,
            num_heads,
            num_kv_heads,
            head_dim,
        })
    }
}

fn family(fields: &Fields<'_>) -> Result<(String, String), Error> {
    let named = fields.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
    let model_type = fields.text("model_type").map(|name| name.strip_prefix(FACTORED_PREFIX).unwrap_or(name));
    let known = MODEL_TYPES.iter().position(|known| Some(*known) == model_type);
    let architecture = known.map(|index| ARCHITECTURES[index]);
    let plain = named.map(|name| name.strip_prefix("Grasp").unwrap_or(name));
    match (architecture, plain) {
        (Some(architecture), None) => Ok((architecture.to_owned(), model_type.unwrap_or_default().to_owned())),
        (Some(architecture), Some(plain)) if architecture == plain => {
            Ok((architecture.to_owned(), model_type.unwrap_or_default().to_owned()))
        }
        _ => Err(Error::Unsupported(format!(
            "the architecture {} (model_type {}) is not supported; supported are {}",
            named.unwrap_or("(none)"),
            fields.text("model_type").unwrap_or("(none)"),
            ARCHITECTURES.join(", ")
        ))),
    }
}

fn refuse_unknown_options(fields: &Fields<'_>) -> Result<(), Error> {
    if let Some(activation) = fields.text("hidden_act").filter(|name| *name != "silu") {
        return Err(Error::Unsupported(format!("hidden_act '{activation}' is not supported: only silu is")));
    }
    if fields.get("quantization_config").is_some() {
        return Err(Error::Unsupported(
            "quantized checkpoints (quantization_config) are not supported: give the original weights".to_owned(),
        ));
    }
    Ok(())
}

fn windows(fields: &Fields<'_>, model_type: &str, num_layers: usize) -> Result<Vec<Option<usize>>, Error> {
    let size = match fields.get("sliding_window") {
        Some(_) => Some(fields.size("sliding_window", None, 1 << 30)?),
        None => None,
    };
    match model_type {
        "mistral" => Ok(vec![size; num_layers]),
        "qwen2" | "qwen3" if fields.flag("use_sliding_window", false)? => {
            let Some(types) =
                fields.get("layer_types").and_then(Value::as_array).filter(|types| types.len() == num_layers)
            else {
                return Err(Error::Unsupported(
                    "use_sliding_window without one layer_types entry per layer is not supported".to_owned(),
                ));
            };
            types
                .iter()
                .map(|kind| match kind.as_str() {
                    Some("sliding_attention") => Ok(size),
                    Some("full_attention") => Ok(None),
                    _ => Err(Error::Unsupported(format!("layer type {kind} is not supported"))),
                })
                .collect()
        }
        _ => Ok(vec![None; num_layers]),
    }
}

/// transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters` with both.
fn rope(fields: &Fields<'_>) -> Result<Rope, Error> {
    let empty = Value::Null;
    let parameters = fields.get("rope_parameters").or_else(|| fields.get("rope_scaling")).unwrap_or(&empty);
    let scaling = Fields(parameters);
    let theta = match scaling.get("rope_theta") {
        Some(_) => scaling.number("rope_theta", None)?,
        None => fields.number("rope_theta", Some(10_000.0))?,
    };
    if fields
        .get("partial_rotary_factor")
        .or_else(|| scaling.get("partial_rotary_factor"))
        .is_some_and(|share| share.as_f64() != Some(1.0))
    {
        return Err(Error::Unsupported("partial_rotary_factor is not supported".to_owned()));
    }
    let kind = scaling.text("rope_type").or_else(|| scaling.text("type")).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: scaling.number("factor", None)? },
        "llama3" => RopeScaling::Llama3 {
            factor: scaling.number("factor", None)?,
            low_freq_factor: scaling.number("low_freq_factor", None)?,
            high_freq_factor: scaling.number("high_freq_factor", None)?,
            original: scaling.number("original_max_position_embeddings", None)?,
        },
        other => {
            return Err(Error::Unsupported(format!(
                "rope scaling '{other}' is not supported: default, linear and llama3 are"
            )));
        }
    };
    Ok(Rope { theta, scaling })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> Value {
        json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 10, "hidden_size": 8,
            "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2})
    }

    fn complaint(field: &str, value: Value) -> String {
        let mut json = llama();
        json[field] = value;
        Config::parse(&json).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_llama_is_understood() {
        let config = Config::parse(&llama()).unwrap();
        assert_eq!((config.head_dim, config.num_kv_heads, config.rope.theta), (2, 2, 10_000.0));
    }

    #[test]
    fn both_spellings_of_rope_mean_the_same() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
        let mut old = llama();
        old["rope_scaling"] = scaling.clone();
        old["rope_theta"] = json!(500.0);
        let mut new = llama();
        new["rope_parameters"] = scaling;
        new["rope_parameters"]["rope_theta"] = json!(500.0);
        assert_eq!(Config::parse(&old).unwrap(), Config::parse(&new).unwrap());
    }

    #[test]
    fn absurd_numbers_and_unknown_options_are_named() {
        for (field, value, words) in [
            ("hidden_size", json!(0), "hidden_size is 0"),
            ("hidden_size", json!(1e30), "hidden_size is"),
            ("num_hidden_layers", json!(-1), "num_hidden_layers is -1"),
            ("num_key_value_heads", json!(3), "cannot share"),
            ("rms_norm_eps", json!("x"), "rms_norm_eps"),
            ("head_dim", json!(3), "head_dim is 3"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), "yarn"),
            ("quantization_config", json!({}), "quantization_config"),
            ("architectures", json!(["GPT2LMHeadModel"]), "GPT2LMHeadModel"),
            ("model_type", json!("gemma"), "supported are LlamaForCausalLM"),
        ] {
            let complaint = complaint(field, value);
            assert!(complaint.contains(words), "{field}: {complaint}");
        }
    }
}
