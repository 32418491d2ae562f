//! Which uploaded texts a job reads.

use super::{JobSpec, TrainingData};
use crate::job::{DatasetId, DatasetName};

impl JobSpec {
    /// The uploaded texts it reads, by the field that names each.
    pub fn uploaded(&self) -> Vec<(String, DatasetId)> {
        let scored = self.evaluation.iter().flat_map(|evaluation| evaluation.perplexity.iter().enumerate());
        let scored = scored.map(|(index, name)| (format!("evaluation.perplexity[{index}]"), name));
        let field = |index: usize| match self.calibration.parts.len() {
            1 => "calibration.dataset".to_owned(),
            _ => format!("calibration.datasets[{index}].dataset"),
        };
        let read = self.calibration.parts.iter().enumerate().map(|(index, part)| (field(index), &part.dataset));
        let trained = self.recovery.iter().filter_map(|recovery| match &recovery.dataset {
            TrainingData::Own(name) => Some(("recovery.dataset".to_owned(), name)),
            TrainingData::Alpaca => None,
        });
        let all = read.chain(trained).chain(scored);
        let own = |(field, name): (String, &DatasetName)| match name {
            DatasetName::Uploaded(id) => Some((field, *id)),
            _ => None,
        };
        all.filter_map(own).collect()
    }
}
