//! How many layers, and how much is kept of each: from the spec's size control to numbers.

use super::Error;
use crate::{
    job::spec::{Allocation, Grasp, LayerMetric, Layers, Method, Projection, Size},
    model::Config,
};

/// What of a redundant layer is kept when graspd chooses the number of layers itself (the paper, section 4.1).
const USUAL_RETAIN_RATIO: f64 = 0.1;

/// The spec's size control, resolved for one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keep {
    /// k = ⌊ratio · out · in / (out + in)⌋, at least 1.
    Ratio(f64),
    /// The shortest prefix of the sorted scores with this share of their sum.
    Threshold(f64),
    /// So many numbers for all chosen matrices together.
    Budget(u64),
}

/// How many layers are compressed, or which.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LayerBudget {
    /// The so many most redundant.
    Count(usize, LayerMetric),
    /// These.
    Explicit(Vec<usize>),
}

impl LayerBudget {
    /// How many.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Count(count, _) => *count,
            Self::Explicit(layers) => layers.len(),
        }
    }
}

/// Largest k whose share of the matrix's parameters is at most `ratio`; at least 1.
pub(super) fn rank(ratio: f64, [out, input]: [usize; 2]) -> usize {
    ((ratio * (out * input) as f64 / (out + input) as f64) as usize).max(1)
}

/// Whether factors of rank `k` would hold more numbers than the matrix itself.
pub(super) const fn stays_dense(k: usize, [out, input]: [usize; 2]) -> bool {
    k * (out + input) > out * input
}

/// What the budget needs to know of a model.
pub(super) struct Sizes<'a> {
    pub(super) config: &'a Config,
    /// Parameters of the whole model.
    pub(super) parameters: u64,
    /// Parameters of one whole layer.
    pub(super) layer: u64,
    pub(super) projections: &'a [Projection],
}

impl Sizes<'_> {
    /// Parameters of the chosen matrices of one layer.
    fn chosen(&self) -> u64 {
        self.projections.iter().map(|&projection| product(self.config.projection_shape(projection))).sum()
    }

    /// Parameters that factors at `ratio` save in one layer.
    fn saved(&self, ratio: f64) -> u64 {
        let saved = |projection: &Projection| {
            let shape @ [out, input] = self.config.projection_shape(*projection);
            ((out * input) as u64).saturating_sub((rank(ratio, shape) * (out + input)) as u64)
        };
        self.projections.iter().map(saved).sum()
    }
}

const fn product([out, input]: [usize; 2]) -> u64 {
    (out * input) as u64
}

/// Resolves layers and size together, since `target_compression` decides both.
pub(super) fn resolve(grasp: &Grasp, sizes: &Sizes<'_>) -> Result<(LayerBudget, Keep), Error> {
    let layers = resolve_layers(grasp, sizes)?;
    let all = sizes.config.num_layers;
    if grasp.method == Method::Remove && layers.count() >= all {
        return Err(Error::invalid_spec(format!(
            "grasp.layers: all {all} layers would be removed; at least one must stay"
        )));
    }
    let global = grasp.allocation == Allocation::Global && grasp.method == Method::Grasp;
    let keep = match grasp.size {
        // As many numbers as a uniform allocation would leave.
        Size::RetainRatio(ratio) if global => {
            Keep::Budget(layers.count() as u64 * (sizes.chosen() - sizes.saved(ratio)))
        }
        Size::TargetCompression(share) if global => Keep::Budget(budget_for(share, layers.count(), sizes)?),
        Size::RetainRatio(ratio) => Keep::Ratio(ratio),
        Size::ImportanceThreshold(share) => Keep::Threshold(share),
        Size::TargetCompression(_) if grasp.method == Method::Remove => Keep::Ratio(USUAL_RETAIN_RATIO),
        Size::TargetCompression(share) => Keep::Ratio(ratio_for(share, layers.count(), sizes)?),
    };
    Ok((layers, keep))
}

fn resolve_layers(grasp: &Grasp, sizes: &Sizes<'_>) -> Result<LayerBudget, Error> {
    let all = sizes.config.num_layers;
    match (&grasp.layers, grasp.size) {
        (Layers::Explicit(layers), _) => match layers.iter().find(|&&layer| layer >= all) {
            Some(layer) => Err(Error::invalid_spec(format!(
                "grasp.layers: there is no layer {layer}; the model has layers 0 to {}",
                all - 1
            ))),
            None => Ok(LayerBudget::Explicit(layers.clone())),
        },
        (Layers::All, _) => Ok(LayerBudget::Explicit((0..all).collect())),
        (Layers::Count(count), _) if *count > all => {
            Err(Error::invalid_spec(format!("grasp.layers: {count} layers are asked for, the model has {all}")))
        }
        (Layers::Count(count), _) => Ok(LayerBudget::Count(*count, grasp.layer_metric)),
        (Layers::Automatic, Size::TargetCompression(share)) => {
            let per_layer = match grasp.method {
                Method::Grasp => sizes.saved(USUAL_RETAIN_RATIO),
                Method::Remove => sizes.layer,
            };
            let wanted = share * sizes.parameters as f64;
            let count = (1..=all).find(|&count| (count as u64 * per_layer) as f64 >= wanted);
            let count = count.ok_or_else(|| unreachable_target(share, all as u64 * per_layer, sizes))?;
            Ok(LayerBudget::Count(count, grasp.layer_metric))
        }
        (Layers::Automatic, _) => Ok(LayerBudget::Count((all / 4).max(1), grasp.layer_metric)),
    }
}

/// The numbers that `count` layers may keep for the share of the whole model to go.
fn budget_for(share: f64, count: usize, sizes: &Sizes<'_>) -> Result<u64, Error> {
    let wanted = (share * sizes.parameters as f64).ceil() as u64;
    let most = count as u64 * sizes.saved(0.0);
    if wanted > most {
        return Err(unreachable_target(share, most, sizes));
    }
    Ok(count as u64 * sizes.chosen() - wanted)
}

/// The largest retain ratio at which `count` layers save the share of the whole model.
fn ratio_for(share: f64, count: usize, sizes: &Sizes<'_>) -> Result<f64, Error> {
    let wanted = share * sizes.parameters as f64;
    let reaches = |ratio: f64| (count as u64 * sizes.saved(ratio)) as f64 >= wanted;
    if !reaches(0.0) {
        return Err(unreachable_target(share, count as u64 * sizes.saved(0.0), sizes));
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if reaches(middle) { low = middle } else { high = middle }
    }
    Ok(low)
}

fn unreachable_target(share: f64, most: u64, sizes: &Sizes<'_>) -> Error {
    Error::invalid_spec(format!(
        "grasp.target_compression: {share} cannot be reached; with these layers and projections at most {:.3} of all parameters can be removed",
        most as f64 / sizes.parameters as f64
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::job::JobSpec;

    fn config() -> Config {
        Config::parse(
            &json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 64,
            "intermediate_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4}),
        )
        .unwrap()
    }

    fn resolve_for(grasp: &Value) -> Result<(LayerBudget, Keep), String> {
        let spec = JobSpec::parse(&json!({"model": "a/b", "grasp": grasp})).unwrap();
        let config = config();
        let layer = 4 * 64 * 64 + 3 * 64 * 128 + 128;
        let sizes =
            Sizes { config: &config, parameters: 8 * layer + 6400 + 64, layer, projections: &spec.grasp.projections };
        resolve(&spec.grasp, &sizes).map_err(|error| error.to_string())
    }

    #[test]
    fn the_rank_is_the_share_of_parameters() {
        assert_eq!(rank(0.3, [128, 128]), 19);
        assert_eq!(rank(0.3, [352, 128]), 28);
        assert_eq!(rank(1e-9, [352, 128]), 1);
        assert!(!stays_dense(rank(1.0, [7, 7]), [7, 7]));
        assert!(stays_dense(4, [7, 7]));
    }

    #[test]
    fn a_target_is_met_and_not_overshot_by_more_than_a_rank() {
        for target in [0.05, 0.2, 0.5, 0.8] {
            let (layers, keep) = resolve_for(&json!({"preset": "paper", "target_compression": target})).unwrap();
            let (LayerBudget::Count(count, _), Keep::Ratio(ratio)) = (layers, keep) else { panic!() };
            let config = config();
            let sizes = Sizes { config: &config, parameters: 1, layer: 1, projections: &Projection::ALL };
            let total = 8 * (4 * 64 * 64 + 3 * 64 * 128 + 128) + 6400 + 64;
            let removed = |ratio| (count as u64 * sizes.saved(ratio)) as f64 / f64::from(total);
            assert!(removed(ratio) >= target && removed(ratio + 0.05) < target, "{target}: {}", removed(ratio));
        }
    }

    #[test]
    fn a_global_budget_is_the_target_of_the_model_or_what_a_uniform_one_leaves() {
        let all = 8 * (4 * 64 * 64 + 3 * 64 * 128);
        let parameters = all + 8 * 128 + 6400 + 64;
        let (layers, keep) = resolve_for(&json!({"target_compression": 0.25})).unwrap();
        assert_eq!(layers, LayerBudget::Explicit((0..8).collect()));
        assert_eq!(keep, Keep::Budget(all - (f64::from(parameters as u32) * 0.25).ceil() as u64));
        let (_, keep) = resolve_for(&json!({"layers": [1, 2], "retain_ratio": 0.5})).unwrap();
        // Rank 16 of the four square matrices, 21 of the three others.
        assert_eq!(keep, Keep::Budget(2 * (4 * 16 * 128 + 3 * 21 * 192)));
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() {
        for (grasp, words) in [
            (json!({"layers": 9}), "the model has 8"),
            (json!({"layers": [3, 8]}), "no layer 8"),
            (json!({"layers": 8, "method": "remove"}), "at least one must stay"),
            (json!({"target_compression": 0.99}), "cannot be reached"),
            (json!({"layers": 1, "target_compression": 0.5}), "cannot be reached"),
        ] {
            let complaint = resolve_for(&grasp).unwrap_err();
            assert!(complaint.contains(words), "{grasp}: {complaint}");
        }
    }
}
