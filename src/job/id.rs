use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of a job: a UUID version 7, so that ids sort by the time of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

/// The text is not a UUID in its usual hyphenated form.
#[derive(Debug, thiserror::Error)]
#[error("not a job id: a job id is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidJobId;

impl JobId {
    /// Wraps a UUID made by [`crate::clock::Ids`].
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let uuid = Uuid::parse_str(text).map_err(|_| InvalidJobId)?;
        // One spelling per id: a simple or braced form would name the same job by another URL.
        (uuid.as_hyphenated().to_string() == text).then_some(Self(uuid)).ok_or(InvalidJobId)
    }
}
