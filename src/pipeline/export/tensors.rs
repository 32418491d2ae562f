//! The tensors of a checkpoint: copied, renumbered, factored or multiplied out.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;

use super::{Changes, FactorNumbers, Target, names::renumbered};
use crate::{
    checkpoint::{self, Pending, TensorEntry, Weights, narrow},
    model::factor_names,
    pipeline::Error,
};

/// The tensors in the order they are written: wide types first, so that every one is aligned.
pub(super) fn tensors<'a>(
    weights: &'a Weights,
    changes: &'a Changes,
    target: Target,
) -> Result<Vec<Pending<'a>>, Error> {
    let mut tensors = Vec::new();
    let mut written = BTreeSet::new();
    for (name, entry) in weights.iter() {
        match place(name, weights, changes, target) {
            Some(Place::Copied(new)) => tensors.push(copied((name, new), entry, weights, changes, target)),
            // A module that was factored before has two tensors but is written once.
            Some(Place::Module { module, new }) if written.insert(module) => {
                tensors.extend(Module { name: module, new, entry, weights, changes, target }.tensors()?);
            }
            Some(Place::Module { .. }) | None => {}
        }
    }
    tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    Ok(tensors)
}

/// Where a tensor of the source goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// As it is, under this name.
    Copied(String),
    /// Into the new tensors of a module of this name.
    Module { module: &'a str, new: String },
}

/// `None` for what is not written: a removed layer, the copy of a tied head.
pub(super) fn place<'a>(name: &'a str, weights: &Weights, changes: &Changes, target: Target) -> Option<Place<'a>> {
    if changes.tied && name == "lm_head.weight" {
        return None;
    }
    let new = renumbered(name, &changes.removed)?;
    let Some((path, part)) = name.rsplit_once('.') else { return Some(Place::Copied(new)) };
    let module = path.strip_suffix(".InLinear").or_else(|| path.strip_suffix(".OutLinear")).unwrap_or(path);
    let factored_before = weights.get(&factor_names(module).0).is_some();
    let rewritten = changes.factors.contains_key(module) || (factored_before && target.is_dense());
    if !rewritten {
        return Some(Place::Copied(new));
    }
    let new = renumbered(module, &changes.removed)?;
    Some(match (part, target.is_dense()) {
        ("weight", _) => Place::Module { module, new },
        (part, true) => Place::Copied(format!("{new}.{part}")),
        (part, false) => Place::Copied(format!("{new}.OutLinear.{part}")),
    })
}

fn copied<'a>(
    (name, new): (&'a str, String),
    entry: &'a TensorEntry,
    weights: &'a Weights,
    changes: &'a Changes,
    target: Target,
) -> Pending<'a> {
    let dtype = target.dtype_of(entry.dtype);
    Pending {
        name: new,
        dtype,
        shape: entry.shape.clone(),
        bytes: Box::new(move || match changes.trained.get(name) {
            Some(numbers) => narrowed(name, numbers, dtype),
            None if dtype == entry.dtype => weights.bytes(name),
            None => narrowed(name, &weights.numbers(name, &entry.shape)?, dtype),
        }),
    }
}

/// A projection that is written anew.
struct Module<'a> {
    name: &'a str,
    new: String,
    /// One of its tensors in the source.
    entry: &'a TensorEntry,
    weights: &'a Weights,
    changes: &'a Changes,
    target: Target,
}

impl<'a> Module<'a> {
    fn tensors(self) -> Result<Vec<Pending<'a>>, Error> {
        let [out, input] = self.shape()?;
        let dtype = self.target.dtype_of(self.entry.dtype);
        let Self { name, new, weights, changes, target, .. } = self;
        let factors = changes.factors.get(name);
        if target.is_dense() {
            let bytes = move || {
                let product = match factors {
                    Some(factors) => product(factors, [out, input])?,
                    None => product(&factors_before(name, weights, [out, input])?, [out, input])?,
                };
                narrowed(name, &product, dtype)
            };
            let name = format!("{new}.weight");
            return Ok(vec![Pending { name, dtype, shape: vec![out, input], bytes: Box::new(bytes) }]);
        }
        let factors = factors.ok_or_else(|| Error::internal(format!("{name} has no factors")))?;
        let (input_name, output_name) = factor_names(&new);
        let pending = |tensor, shape, numbers: fn(&FactorNumbers) -> &[f32]| Pending {
            name: tensor,
            dtype,
            shape,
            bytes: Box::new(move || narrowed(name, numbers(factors), dtype)),
        };
        Ok(vec![
            pending(input_name, vec![factors.rank, input], |factors| &factors.input),
            pending(output_name, vec![out, factors.rank], |factors| &factors.output),
        ])
    }

    /// `[out, in]`, dense or factored.
    fn shape(&self) -> Result<[usize; 2], Error> {
        let (input, output) = factor_names(self.name);
        let size = |entry: &TensorEntry, axis: usize| entry.shape.get(axis).copied();
        let shape = match (self.weights.get(&input), self.weights.get(&output)) {
            (Some(input), Some(output)) => size(output, 0).zip(size(input, 1)),
            _ => size(self.entry, 0).zip(size(self.entry, 1)),
        };
        shape.map(<[usize; 2]>::from).ok_or_else(|| Error::internal(format!("{} is no matrix", self.name)))
    }
}

/// The factors that a module has in the source.
fn factors_before(
    module: &str,
    weights: &Weights,
    [out, input]: [usize; 2],
) -> Result<FactorNumbers, checkpoint::Error> {
    let (input_name, output_name) = factor_names(module);
    let rank = weights.get(&input_name).and_then(|entry| entry.shape.first()).copied().unwrap_or(0);
    Ok(FactorNumbers {
        rank,
        input: weights.numbers(&input_name, &[rank, input])?,
        output: weights.numbers(&output_name, &[out, rank])?,
    })
}

/// W = OutLinear · InLinear [out, in], row-major.
pub(super) fn product(factors: &FactorNumbers, [out, input]: [usize; 2]) -> Result<Vec<f32>, checkpoint::Error> {
    let right = Tensor::from_slice(&factors.input, (factors.rank, input), &Device::Cpu)?;
    let left = Tensor::from_slice(&factors.output, (out, factors.rank), &Device::Cpu)?;
    Ok(left.matmul(&right)?.flatten_all()?.to_vec1()?)
}

/// As [`narrow`], but numbers that the type cannot hold are an error.
fn narrowed(name: &str, numbers: &[f32], dtype: Dtype) -> Result<Vec<u8>, checkpoint::Error> {
    let fits = |x: &f32| match dtype {
        Dtype::F16 => f16::from_f32(*x).is_finite(),
        Dtype::BF16 => bf16::from_f32(*x).is_finite(),
        _ => true,
    };
    match numbers.iter().find(|x| !fits(x)) {
        None => narrow(numbers, dtype),
        Some(large) => Err(checkpoint::Error::Unsupported(format!(
            "export.dtype: {name} holds {large}, which is too large for {dtype:?}; use bf16 or f32"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{checkpoint::write_safetensors, job::spec::ExportFormat};

    const FACTORED: Target = Target { format: ExportFormat::Factored, dtype: None };
    const DENSE: Target = Target { format: ExportFormat::Dense, dtype: None };

    /// A source whose `up_proj` of layer 4 is factored already.
    fn source() -> (tempfile::TempDir, Weights) {
        let folder = tempfile::tempdir().unwrap();
        let tensor = |name: &str, shape: [usize; 2]| Pending {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes: Box::new(move || narrow(&vec![2.0; shape[0] * shape[1]], Dtype::F32)),
        };
        let up = "model.layers.4.mlp.up_proj";
        let tensors = vec![
            tensor(&format!("{up}.InLinear.weight"), [1, 3]),
            tensor(&format!("{up}.OutLinear.weight"), [2, 1]),
            tensor("model.layers.3.self_attn.q_proj.weight", [2, 2]),
            tensor("lm_head.weight", [2, 2]),
        ];
        write_safetensors(folder.path(), tensors, u64::MAX, || Ok(())).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        (folder, weights)
    }

    fn changes(removed: Vec<usize>) -> Changes {
        let factors = FactorNumbers { rank: 1, input: vec![1.0, 2.0], output: vec![3.0, 4.0] };
        let factors = BTreeMap::from([("model.layers.3.self_attn.q_proj".to_owned(), Arc::new(factors))]);
        Changes { factors, removed, trained: BTreeMap::new(), tied: true }
    }

    #[test]
    fn names_follow_their_layer_and_biases_their_factor() {
        let (_folder, weights) = source();
        let changes = changes(vec![1, 2]);
        let named = |name: &str, target| match place(name, &weights, &changes, target)? {
            Place::Copied(new) => Some(new),
            Place::Module { new, .. } => Some(format!("module {new}")),
        };
        for (name, factored, dense) in [
            ("model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm.weight", None),
            ("model.layers.3.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", None),
            ("model.layers.3.self_attn.q_proj.weight", "module model.layers.1.self_attn.q_proj", None),
            (
                "model.layers.3.self_attn.q_proj.bias",
                "model.layers.1.self_attn.q_proj.OutLinear.bias",
                Some("model.layers.1.self_attn.q_proj.bias"),
            ),
            (
                "model.layers.4.mlp.up_proj.InLinear.weight",
                "model.layers.2.mlp.up_proj.InLinear.weight",
                Some("module model.layers.2.mlp.up_proj"),
            ),
            (
                "model.layers.4.mlp.up_proj.OutLinear.bias",
                "model.layers.2.mlp.up_proj.OutLinear.bias",
                Some("model.layers.2.mlp.up_proj.bias"),
            ),
            ("model.norm.weight", "model.norm.weight", None),
        ] {
            assert_eq!(named(name, FACTORED).as_deref(), Some(factored), "{name}");
            assert_eq!(named(name, DENSE).as_deref(), dense.or(Some(factored)), "{name}");
        }
        for gone in ["model.layers.1.input_layernorm.weight", "lm_head.weight"] {
            assert_eq!(named(gone, FACTORED), None, "{gone}");
        }
    }

    #[test]
    fn a_dense_checkpoint_has_every_product_written_back() {
        let (_folder, weights) = source();
        let changes = changes(vec![]);
        let output = tempfile::tempdir().unwrap();
        write_safetensors(output.path(), tensors(&weights, &changes, DENSE).unwrap(), u64::MAX, || Ok(())).unwrap();
        let written = Weights::open(output.path()).unwrap();
        let names: Vec<&str> = written.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["model.layers.3.self_attn.q_proj.weight", "model.layers.4.mlp.up_proj.weight"]);
        assert_eq!(written.numbers(names[0], &[2, 2]).unwrap(), [3.0, 6.0, 4.0, 8.0]);
        assert_eq!(written.numbers(names[1], &[2, 3]).unwrap(), [4.0; 6]);
    }

    #[test]
    fn numbers_that_do_not_fit_their_type_are_refused_by_name() {
        let complaint = narrowed("model.norm", &[1.0, 1e6], Dtype::F16).unwrap_err().to_string();
        assert!(complaint.contains("model.norm") && complaint.contains("export.dtype"), "{complaint}");
        assert!(narrowed("model.norm", &[1.0, 1e6], Dtype::BF16).is_ok());
    }
}
