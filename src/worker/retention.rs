//! How long jobs that are over are kept.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{folder, slot::Shared};
use crate::{
    artifact::{ArtifactError, Logs},
    fault,
    job::JobId,
    queue::{Deletion, StoreError},
};

/// What of ended jobs is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// A job that ended longer ago is deleted.
    pub age: Option<Duration>,
    /// Bytes of all published files; beyond them the job that ended first is deleted.
    pub bytes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    #[error("the log: {0}")]
    Log(#[from] std::io::Error),
}

/// Deletes what need not be kept any longer.
pub(super) async fn apply(shared: &Shared) {
    let retention = shared.settings.retention;
    if retention == Retention::default() {
        return;
    }
    if let Err(error) = delete_old(shared, retention).await {
        tracing::warn!(%error, "old jobs could not be deleted");
    }
}

async fn delete_old(shared: &Shared, retention: Retention) -> Result<(), Trouble> {
    let sizes: HashMap<JobId, u64> = shared.artifacts.published().await?.into_iter().collect();
    let in_use = shared.store.models_in_use().await?;
    for id in beyond(retention, &shared.store.ended().await?, &sizes, &in_use) {
        // Files first: a record without files can still be deleted, files without a record never.
        shared.artifacts.remove(id).await?;
        Logs::new(shared.settings.log_dir.clone()).remove(id)?;
        fault::point("retention-files-removed");
        if shared.store.delete(id).await? == Deletion::Deleted {
            tracing::info!(job.id = %id, "an old job was deleted");
            folder::remove_work(&shared.settings, id);
        }
    }
    Ok(())
}

/// Which of the ended jobs, the one that ended first at the head, are not kept; never one that another job needs.
fn beyond(
    retention: Retention,
    ended: &[(JobId, Duration)],
    sizes: &HashMap<JobId, u64>,
    in_use: &BTreeSet<JobId>,
) -> Vec<JobId> {
    let size = |id: &JobId| sizes.get(id).copied().unwrap_or(0);
    let mut left: u64 = ended.iter().map(|(id, _)| size(id)).sum();
    let mut old = Vec::new();
    for (id, age) in ended.iter().filter(|(id, _)| !in_use.contains(id)) {
        let too_old = retention.age.is_some_and(|most| *age > most);
        let too_much = size(id) > 0 && retention.bytes.is_some_and(|most| left > most);
        if too_old || too_much {
            left -= size(id);
            old.push(*id);
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Ids, RandomIds};

    #[test]
    fn the_oldest_go_first_and_no_more_than_must() {
        let ids: Vec<_> = (0..4).map(|_| RandomIds.job_id()).collect();
        let ended: Vec<_> = ids.iter().zip([40, 30, 20, 10]).map(|(&id, age)| (id, Duration::from_secs(age))).collect();
        let sizes = HashMap::from([(ids[0], 5), (ids[2], 5), (ids[3], 5)]);
        let mut in_use = BTreeSet::new();
        let beyond = |age: Option<u64>, bytes, in_use: &BTreeSet<JobId>| {
            beyond(Retention { age: age.map(Duration::from_secs), bytes }, &ended, &sizes, in_use)
        };
        assert_eq!(beyond(None, None, &in_use), []);
        assert_eq!(beyond(Some(25), None, &in_use), ids[..2]);
        // The second has published nothing: deleting it would not help.
        assert_eq!(beyond(None, Some(7), &in_use), [ids[0], ids[2]]);
        assert_eq!(beyond(Some(35), Some(10), &in_use), ids[..1]);
        in_use.insert(ids[0]);
        assert_eq!(beyond(Some(35), Some(7), &in_use), [ids[2], ids[3]]);
    }
}
