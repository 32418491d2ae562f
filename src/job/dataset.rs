use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

const PREFIX: &str = "ds_";

/// The identity of an uploaded data set: `ds_` and a UUID version 7 in 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetId(Uuid);

impl DatasetId {
    /// Wraps a UUID made by [`crate::clock::Ids`].
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.as_simple())
    }
}

impl FromStr for DatasetId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uuid = text.strip_prefix(PREFIX).and_then(|digits| Uuid::parse_str(digits).ok()).map(Self);
        // One spelling per id.
        uuid.filter(|id| id.to_string() == text)
            .ok_or_else(|| format!("'{text}' is no id of a data set: POST /v1/datasets gives one"))
    }
}

/// How an uploaded text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// As it is.
    Txt,
    /// An object a line.
    Jsonl,
}

impl TextFormat {
    /// Its name, which is also the extension of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Jsonl => "jsonl",
        }
    }
}

impl FromStr for TextFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "txt" => Ok(Self::Txt),
            "jsonl" => Ok(Self::Jsonl),
            _ => Err(format!("'{text}' is no format of a text: txt or jsonl")),
        }
    }
}
