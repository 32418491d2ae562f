//! What a preset fills in, and which settings make no sense together.

use super::{
    Allocation, Basis, Grasp, GraspBody, Layers, Method, Preset, Refine, Schedule, Score, Size, SpecError, check::wrong,
};

/// What the paper keeps of a redundant layer (section 4.1).
const PAPER_RETAIN_RATIO: f64 = 0.1;
/// What is removed of the model when the body leaves everything to graspd.
const USUAL_TARGET: f64 = 0.2;

/// The settings that depend on each other.
pub(super) struct Filled {
    pub(super) preset: Preset,
    pub(super) method: Method,
    pub(super) layers: Layers,
    pub(super) size: Size,
    pub(super) schedule: Schedule,
    pub(super) score: Score,
    pub(super) basis: Basis,
    pub(super) allocation: Allocation,
    pub(super) refine: Refine,
}

/// Fills in what the body leaves out. What it says wins, and the rest gives way to it: a score of the paper brings the
/// paper's basis, a control per matrix a uniform allocation.
pub(super) fn fill(body: &GraspBody, layers: Option<Layers>, size: Option<Size>) -> Filled {
    let preset = body.preset.unwrap_or(Preset::Best);
    let method = body.method.unwrap_or(Method::Grasp);
    let best = preset == Preset::Best && method == Method::Grasp;
    let schedule = body.schedule.unwrap_or(Schedule::OneShot);
    let basis = body.basis.unwrap_or(match body.score {
        None | Some(Score::Energy) if best => Basis::TwoSided,
        _ => Basis::Plain,
    });
    let score = body.score.unwrap_or(if best && basis != Basis::Plain { Score::Energy } else { Score::Taylor });
    let control_per_matrix = matches!(size, Some(Size::ImportanceThreshold(_)));
    let weighs_the_loss = best && (basis, score, schedule) == (Basis::TwoSided, Score::Energy, Schedule::OneShot);
    let one_budget = weighs_the_loss && !control_per_matrix;
    let allocation = body.allocation.unwrap_or(if one_budget { Allocation::Global } else { Allocation::Uniform });
    let refine = body.refine.unwrap_or(if weighs_the_loss { Refine::Sequential } else { Refine::None });
    let everywhere = best && allocation == Allocation::Global;
    Filled {
        size: size.unwrap_or(match everywhere && layers.is_none() {
            true => Size::TargetCompression(USUAL_TARGET),
            false => Size::RetainRatio(PAPER_RETAIN_RATIO),
        }),
        layers: layers.unwrap_or(if everywhere { Layers::All } else { Layers::Automatic }),
        preset,
        method,
        schedule,
        score,
        basis,
        allocation,
        refine,
    }
}

/// The refinement decomposes what the statistics of the inputs weigh, and keeps the largest of it.
fn check_refine(grasp: &Grasp) -> Result<(), SpecError> {
    if grasp.refine == Refine::None {
        return Ok(());
    }
    let fault = |message: &str| Err(wrong("grasp.refine", message));
    if grasp.method == Method::Remove {
        return fault("has no meaning with method 'remove', which makes no factors");
    }
    if grasp.schedule == Schedule::Iterative {
        return fault(
            "renews what the one_shot schedule finds at once; the iterative one renews its statistics itself",
        );
    }
    if grasp.basis == Basis::Plain {
        return fault(
            "renews the statistics of a matrix's inputs, and the plain basis has none: use basis 'two_sided' or 'whitened'",
        );
    }
    if !matches!(grasp.score, Score::Energy | Score::Magnitude) {
        return fault("keeps the largest singular values of each matrix, so the score must be 'energy' or 'magnitude'");
    }
    Ok(())
}

/// Refuses combinations without sense, and says why.
pub(super) fn check_together(grasp: &Grasp) -> Result<(), SpecError> {
    let fault = |field: &str, message: &str| Err(wrong(format!("grasp.{field}"), message));
    check_refine(grasp)?;
    if grasp.method == Method::Remove {
        return match (grasp.size, &grasp.layers) {
            (Size::ImportanceThreshold(_), _) => {
                fault("importance_threshold", "has no meaning with method 'remove', which keeps nothing of a layer")
            }
            (_, Layers::All) => fault("layers", "'all' leaves nothing of the model with method 'remove'"),
            _ => Ok(()),
        };
    }
    if grasp.score == Score::Fisher && grasp.basis != Basis::Plain {
        return fault(
            "score",
            "fisher squares the gradients of every window, so it needs the triplets before the pass over the text, and only \
             the plain basis has them by then: use basis 'plain', or score 'energy'",
        );
    }
    if grasp.allocation == Allocation::Uniform {
        return Ok(());
    }
    let in_units_of_the_loss = match grasp.score {
        Score::Taylor | Score::Fisher => true,
        Score::Energy => grasp.basis == Basis::TwoSided,
        Score::Gradient | Score::Magnitude => false,
    };
    if !in_units_of_the_loss {
        return fault(
            "allocation",
            "global compares triplets of different matrices, so their score must measure the loss: taylor, fisher, or \
             energy in the two_sided basis",
        );
    }
    if grasp.schedule == Schedule::Iterative {
        return fault("allocation", "global spends one budget at once, the iterative schedule goes block by block");
    }
    if let Size::ImportanceThreshold(_) = grasp.size {
        return fault(
            "importance_threshold",
            "is a share of each matrix's scores: use retain_ratio or target_compression with allocation 'global'",
        );
    }
    Ok(())
}
