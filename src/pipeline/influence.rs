//! Stage 1: which layers change their input least (section 3.1 of the paper).

use std::f64::consts::PI;

use candle_core::{Result as DeviceResult, Tensor};
use serde::{Deserialize, Serialize};

use super::{Context, Error};
use crate::{
    checkpoint,
    eval::Windows,
    job::{Progress, Stage, spec::LayerMetric},
    model::{Batch, Decoder, Group, Start, Visitor, cosine_similarities},
};

/// Tokens that go through the model at once.
const TOKENS_AT_ONCE: usize = 2048;

/// What the calibration text says of every layer, and which layers follow from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "block influence is the term of the field")]
pub(super) struct Influence {
    /// 1 − mean cosine similarity of input and output, by layer; empty until a pass over the text has seen it.
    pub(super) block_influence: Vec<f64>,
    /// Mean angular distance over `count` layers from each layer on, where that metric was asked for.
    pub(super) angular_distance: Option<Vec<f64>>,
    /// The redundant layers, ascending.
    pub(super) redundant: Vec<usize>,
}

/// Which layers are to be found.
pub(super) enum Wanted<'a> {
    /// The so many most redundant by a metric.
    Count(usize, LayerMetric),
    /// These, whatever the metric says.
    Explicit(&'a [usize]),
}

/// Measures every layer on the calibration windows and chooses.
pub(super) fn measure(
    decoder: &Decoder,
    windows: &Windows,
    wanted: &Wanted<'_>,
    context: &Context<'_>,
) -> Result<Influence, Error> {
    let span = match wanted {
        Wanted::Count(count, LayerMetric::Angular) => Some(*count),
        Wanted::Count(..) | Wanted::Explicit(_) => None,
    };
    let groups = Group::cut(&windows.windows, windows.length, TOKENS_AT_ONCE);
    let mut meter = Meter::new(decoder.num_layers(), span, &groups, context);
    decoder.visit(&groups, Start::Tokens, decoder.num_layers(), &mut meter)?;
    let Meter { cosines, angles, .. } = meter;
    let count = windows.windows.len() as f64;
    let block_influence = cosines.influence(windows)?;
    let angular_distance = span.map(|_| angles.iter().map(|sum| sum / count).collect::<Vec<_>>());
    let redundant = choose(&block_influence, angular_distance.as_deref(), wanted);
    Ok(Influence { block_influence, angular_distance, redundant })
}

/// Σ cos(input, output) over all tokens, by layer.
pub(super) struct Cosines(Vec<f64>);

impl Cosines {
    pub(super) fn new(layers: usize) -> Self {
        Self(vec![0.0; layers])
    }

    /// Adds the tokens whose states in front of a layer and behind it are `before` and `after` [tokens, hidden].
    pub(super) fn add(&mut self, layer: usize, before: &Tensor, after: &Tensor) -> DeviceResult<()> {
        self.0[layer] += cosine_similarities(before, after)?.iter().sum::<f64>();
        Ok(())
    }

    /// The block influence of every layer, once all tokens of the windows are added.
    pub(super) fn influence(&self, windows: &Windows) -> Result<Vec<f64>, Error> {
        let tokens = (windows.windows.len() * windows.length) as f64;
        let influence: Vec<f64> = self.0.iter().map(|sum| 1.0 - sum / tokens).collect();
        match influence.iter().position(|influence| !influence.is_finite()) {
            None => Ok(influence),
            Some(layer) => Err(Error::numerical(format!(
                "the block influence of layer {layer} is not finite: the model's hidden states overflow or vanish there"
            ))),
        }
    }
}

/// Adds up what every layer does to the hidden states.
struct Meter<'a> {
    groups: &'a [Group<'a>],
    context: &'a Context<'a>,
    /// Layers of groups that are done.
    seen: usize,
    cosines: Cosines,
    /// Layers of a run, where the angular metric is asked for.
    span: Option<usize>,
    /// Σ angle over a run, by its first layer.
    angles: Vec<f64>,
    /// The last tokens of each group in front of every layer and behind the last, until they are used.
    ends: Vec<Vec<Tensor>>,
}

impl<'a> Meter<'a> {
    fn new(layers: usize, span: Option<usize>, groups: &'a [Group<'a>], context: &'a Context<'a>) -> Self {
        let runs = span.map_or(0, |span| layers + 1 - span);
        let ends = vec![Vec::new(); groups.len()];
        Self { groups, context, seen: 0, cosines: Cosines::new(layers), span, angles: vec![0.0; runs], ends }
    }

    /// In windows, of which each has gone through a share of the layers.
    fn report(&mut self, layer: usize) -> Result<(), checkpoint::Error> {
        self.seen += 1;
        let total: usize = self.groups.iter().map(|group| group.windows.len()).sum();
        let done = total * self.seen / (self.groups.len() * self.cosines.0.len());
        let progress = Progress { layer: Some(layer), ..Progress::new(Stage::Influence, done as u64, total as u64) };
        self.context.progress(progress).map_err(|_| checkpoint::Error::Cancelled)
    }
}

impl Visitor for Meter<'_> {
    fn layer(&mut self, group: usize, layer: usize, before: &Tensor, after: &Tensor) -> Result<(), checkpoint::Error> {
        self.cosines.add(layer, before, after)?;
        if self.span.is_some() {
            let batch = self.groups[group].batch();
            if layer == 0 {
                self.ends[group].push(last_tokens(before, batch)?);
            }
            self.ends[group].push(last_tokens(after, batch)?);
        }
        self.report(layer)
    }

    fn end(&mut self, group: usize, _: Tensor) -> Result<(), checkpoint::Error> {
        if let Some(span) = self.span {
            add_angles(&mut self.angles, span, &std::mem::take(&mut self.ends[group]))?;
        }
        Ok(())
    }
}

/// The hidden state of each window's last token, [windows, hidden].
fn last_tokens(hidden: &Tensor, batch: Batch) -> DeviceResult<Tensor> {
    let rows: Vec<u32> = (1..=batch.windows).map(|window| (window * batch.length - 1) as u32).collect();
    let count = rows.len();
    hidden.index_select(&Tensor::from_vec(rows, count, hidden.device())?, 0)
}

/// Adds arccos(cos) / π of the last token over `span` layers from every layer on (Gromov et al., equation 7).
fn add_angles(angles: &mut [f64], span: usize, ends: &[Tensor]) -> DeviceResult<()> {
    for (first, angle) in angles.iter_mut().enumerate() {
        let cosines = cosine_similarities(&ends[first], &ends[first + span])?;
        *angle += cosines.iter().map(|cos| cos.clamp(-1.0, 1.0).acos() / PI).sum::<f64>();
    }
    Ok(())
}

fn choose(block_influence: &[f64], angular_distance: Option<&[f64]>, wanted: &Wanted<'_>) -> Vec<usize> {
    match (wanted, angular_distance) {
        (Wanted::Explicit(layers), _) => layers.to_vec(),
        (Wanted::Count(count, _), Some(distances)) => {
            let first = ascending(distances).first().copied().unwrap_or(0);
            (first..first + count).collect()
        }
        (Wanted::Count(count, _), None) => {
            let mut chosen = ascending(block_influence);
            chosen.truncate(*count);
            chosen.sort_unstable();
            chosen
        }
    }
}

/// Indices by value, smallest first; the lower index wins a tie.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_influences_are_redundant_in_model_order() {
        let influence = [0.9, 0.3, 0.1, 0.2, 0.5];
        let wanted = Wanted::Count(3, LayerMetric::BlockInfluence);
        assert_eq!(choose(&influence, None, &wanted), [1, 2, 3]);
        assert_eq!(choose(&influence, None, &Wanted::Explicit(&[0, 4])), [0, 4]);
    }

    #[test]
    fn the_angular_choice_is_one_run() {
        let wanted = Wanted::Count(2, LayerMetric::Angular);
        assert_eq!(choose(&[0.0; 4], Some(&[0.4, 0.1, 0.2]), &wanted), [1, 2]);
    }
}
