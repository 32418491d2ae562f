//! What the report says of matrices and sizes.

use super::{Model, compress::Compressed};
use crate::{
    checkpoint::TensorEntry,
    job::{
        JobSpec, MatrixReport, RemovedShares,
        spec::{Basis, Method, Projection},
    },
};

/// What became of every matrix, in model order.
pub(super) fn matrices(matrices: &[Compressed], model: &Model, spec: &JobSpec) -> Vec<MatrixReport> {
    matrices.iter().map(|matrix| matrix_report(matrix, model, spec)).collect()
}

fn matrix_report(matrix: &Compressed, model: &Model, spec: &JobSpec) -> MatrixReport {
    let name = &matrix.triplets.name;
    let [out, input] = matrix.triplets.shape;
    let tensors = [format!("{name}.weight"), format!("{name}.InLinear.weight"), format!("{name}.OutLinear.weight")];
    let before = tensors.iter().filter_map(|tensor| model.weights.get(tensor)).map(TensorEntry::elements).sum();
    let rank = matrix.factors.as_ref().map(|factors| factors.rank);
    MatrixReport {
        name: name.clone(),
        shape: matrix.triplets.shape,
        rank,
        kept: matrix.triplets.kept.clone(),
        parameters_before: before,
        parameters_after: rank.map_or(before, |rank| (rank * (out + input)) as u64),
        predicted_loss_rise: (spec.grasp.basis == Basis::TwoSided).then(|| matrix.triplets.half_energy_lost()),
    }
}

/// The rise of the loss that all matrices together predict; `None` where the basis does not measure it.
pub(super) fn predicted_loss_rise(matrices: &[MatrixReport]) -> Option<f64> {
    if matrices.is_empty() { None } else { matrices.iter().map(|matrix| matrix.predicted_loss_rise).sum() }
}

/// Share of the model's parameters that went, `after` of them being left.
pub(super) fn removed(
    matrices: &[MatrixReport],
    redundant: &[usize],
    after: u64,
    model: &Model,
    spec: &JobSpec,
) -> RemovedShares {
    let shape = |&projection: &Projection| model.config.projection_shape(projection).iter().product::<usize>();
    let layer: usize = Projection::ALL.iter().map(shape).sum();
    let gone = match spec.grasp.method {
        Method::Remove => (layer * redundant.len()) as f64,
        Method::Grasp => {
            let gone = |matrix: &MatrixReport| matrix.parameters_before as f64 - matrix.parameters_after as f64;
            matrices.iter().map(gone).sum()
        }
    };
    RemovedShares {
        all: 1.0 - after as f64 / model.parameters as f64,
        linear: gone / (layer * model.config.num_layers) as f64,
    }
}
