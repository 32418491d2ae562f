//! What a job does, and which parts of its body have no meaning then.

use super::{CalibrationBody, GraspBody, JobBody, Kind, SpecError, check::wrong};

/// The job's kind: a body that compresses nothing by `grasp: null` is a recovery.
pub(super) fn check_kind(body: &JobBody) -> Result<Kind, SpecError> {
    let kind = match (body.kind, &body.grasp) {
        (Kind::Compress, None) => Kind::Recover,
        (kind, _) => kind,
    };
    match kind {
        Kind::Compress => {}
        Kind::Recover => check_recovery(body)?,
        Kind::Evaluate => check_evaluation(body)?,
    }
    Ok(kind)
}

fn check_recovery(body: &JobBody) -> Result<(), SpecError> {
    compresses_nothing(body, "where grasp is null, which compresses nothing")?;
    if body.recovery.is_none() {
        let message = "is null, and so is grasp: there is nothing to do; kind 'evaluate' scores a model as it is";
        return Err(wrong("recovery", message));
    }
    Ok(())
}

fn check_evaluation(body: &JobBody) -> Result<(), SpecError> {
    let when = "with kind 'evaluate', which compresses nothing";
    compresses_nothing(body, when)?;
    if body.recovery.is_some() {
        return Err(wrong("recovery", format!("has no meaning {when}")));
    }
    if body.evaluation.is_none() {
        return Err(wrong("evaluation", "is null, but kind 'evaluate' does nothing else"));
    }
    Ok(())
}

fn compresses_nothing(body: &JobBody, when: &str) -> Result<(), SpecError> {
    if body.calibration != CalibrationBody::default() {
        return Err(wrong("calibration", format!("has no meaning {when}")));
    }
    if body.grasp.as_ref().is_some_and(|grasp| *grasp != GraspBody::default()) {
        return Err(wrong("grasp", format!("has no meaning {when}")));
    }
    Ok(())
}
