//! Removing what no row names: the leavings of attempts that did not end, and of jobs that are gone.

use std::collections::BTreeMap;

use super::{Bucket, Row, Rows, bucket::Object};
use crate::{
    artifact::ArtifactError,
    job::{JobId, Status},
};

/// Where objects of jobs lie.
const PLACES: [&str; 3] = ["jobs", "checkpoints", "logs"];

/// Whose an object is: `<place>/<job>/<attempt>…`.
pub(super) fn owner(key: &str) -> Option<(JobId, u32)> {
    let mut parts = key.split('/').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Removes what is of no use any more; how many objects.
pub(super) async fn sweep(bucket: &Bucket, rows: &dyn Rows) -> Result<usize, ArtifactError> {
    let mut by_job: BTreeMap<JobId, Vec<Object>> = BTreeMap::new();
    for place in PLACES {
        for object in bucket.below(place).await? {
            if let Some((job, _)) = owner(&object.key) {
                by_job.entry(job).or_default().push(object);
            }
        }
    }
    let mut removed = 0;
    for (job, objects) in by_job {
        // After the list: what is in it was written by the row's attempt at the latest.
        let row = rows.row(job).await.map_err(ArtifactError::Rows)?;
        let keys: Vec<_> = objects.into_iter().map(|object| object.key).filter(|key| is_left(key, row)).collect();
        removed += keys.len();
        bucket.remove(&keys).await?;
    }
    Ok(removed)
}

/// Whether an object of a job with this row is of no use to anybody.
fn is_left(key: &str, row: Option<Row>) -> bool {
    let (Some(Row { status, attempt }), Some((_, of))) = (row, owner(key)) else {
        // The job was deleted, and what it had with it.
        return true;
    };
    let place = key.split('/').next().unwrap_or_default();
    match (place, status) {
        ("logs", _) => false,
        ("jobs", Status::Succeeded) => of != attempt,
        ("jobs", Status::Running) => of < attempt,
        ("jobs", _) => of <= attempt,
        // A failed job may be resumed.
        (_, status) => matches!(status, Status::Succeeded | Status::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_names_is_kept() {
        let left = |key: &str, status, attempt| {
            let key = key.replace('#', "01890a5d-ac96-774b-bcce-b302099a8057");
            is_left(&key, Some(Row { status, attempt }))
        };
        for (key, status, attempt, expected) in [
            ("jobs/#/2/a", Status::Succeeded, 2, false),
            ("jobs/#/1/a", Status::Succeeded, 2, true),
            ("jobs/#/2/a", Status::Running, 2, false),
            ("jobs/#/1/a", Status::Running, 2, true),
            ("jobs/#/2/a", Status::Queued, 2, true),
            ("jobs/#/3/a", Status::Queued, 2, false),
            ("jobs/#/2/a", Status::Cancelled, 2, true),
            ("checkpoints/#/1/a", Status::Running, 2, false),
            ("checkpoints/#/1/a", Status::Failed, 2, false),
            ("checkpoints/#/2/a", Status::Succeeded, 2, true),
            ("logs/#/1", Status::Cancelled, 2, false),
        ] {
            assert_eq!(left(key, status, attempt), expected, "{key} {status:?} {attempt}");
        }
        assert!(is_left("logs/01890a5d-ac96-774b-bcce-b302099a8057/1", None));
    }
}
