//! What is written: `export` of a job.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::{JobSpec, SpecError};

/// The largest file of weights unless the job says otherwise, in bytes, as other tools of the field have it.
const LARGEST_SHARD: u64 = 5_000_000_000;
/// Units of a size in words, longest first.
const UNITS: [(&str, u64); 7] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// At least one; with two, each has a folder of its own name.
    pub formats: Vec<ExportFormat>,
    /// Type of the numbers; the source's own when absent.
    pub dtype: Option<ExportType>,
    /// The largest file of weights, in bytes.
    pub max_shard_size: u64,
}

/// How a compressed matrix is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// As its two factors: smaller and faster.
    Factored,
    /// As their product, an ordinary matrix: the same size and speed as the source, for tools that know no factors.
    Dense,
}

impl ExportFormat {
    /// The word of the API, and the name of the folder where there are two.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Factored => "factored",
            Self::Dense => "dense",
        }
    }
}

/// Type of the numbers of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportType {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits, up to 65,504.
    F16,
}

/// What is written. Every field has a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExportBody {
    /// `factored`, `dense` or both; with both, each has a folder of its own name. Default: factored.
    pub formats: Option<Vec<ExportFormat>>,
    /// Type of the numbers. Default: the source's own.
    pub dtype: Option<ExportType>,
    /// The largest file of weights: bytes, or words such as 5GB or 512MiB. Default: 5GB.
    pub max_shard_size: Option<ShardSizeBody>,
}

/// Bytes, or a number with a unit.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ShardSizeBody {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit: `5GB`, `512MiB`.
    Words(String),
}

impl ShardSizeBody {
    /// `None` of words that are no size.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(*bytes),
            Self::Words(words) => parse_size(words),
        }
    }
}

impl<'de> Deserialize<'de> for ShardSizeBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShardSizeVisitor)
    }
}

struct ShardSizeVisitor;

impl de::Visitor<'_> for ShardSizeVisitor {
    type Value = ShardSizeBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a size such as 5GB or 512MiB")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ShardSizeBody, E> {
        Ok(ShardSizeBody::Bytes(bytes))
    }

    fn visit_str<E: de::Error>(self, words: &str) -> Result<ShardSizeBody, E> {
        Ok(ShardSizeBody::Words(words.to_owned()))
    }
}

impl Default for Export {
    fn default() -> Self {
        Self { formats: vec![ExportFormat::Factored], dtype: None, max_shard_size: LARGEST_SHARD }
    }
}

impl From<&JobSpec> for ExportBody {
    fn from(spec: &JobSpec) -> Self {
        let Export { formats, dtype, max_shard_size } = &spec.export;
        Self {
            formats: Some(formats.clone()),
            dtype: *dtype,
            max_shard_size: Some(ShardSizeBody::Bytes(*max_shard_size)),
        }
    }
}

pub(super) fn check_export(body: ExportBody) -> Result<Export, SpecError> {
    let default = Export::default();
    let wrong = |field: &str, message: String| SpecError { field: format!("export.{field}"), message };
    let mut formats = body.formats.unwrap_or(default.formats);
    let given = formats.len();
    formats.sort_unstable();
    formats.dedup();
    if formats.is_empty() || formats.len() != given {
        return Err(wrong("formats", "must name factored, dense or both, each once".to_owned()));
    }
    let max_shard_size = match body.max_shard_size {
        None => Some(default.max_shard_size),
        Some(size) => size.bytes(),
    };
    let expected = || wrong("max_shard_size", "must be a positive number of bytes, or a size such as 5GB".to_owned());
    let max_shard_size = max_shard_size.filter(|bytes| *bytes > 0).ok_or_else(expected)?;
    Ok(Export { formats, dtype: body.dtype, max_shard_size })
}

/// Bytes of `5GB`, `512 MiB` or `1000`.
fn parse_size(words: &str) -> Option<u64> {
    let words = words.trim().to_ascii_uppercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((words.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.unwrap_or((words.as_str(), 1));
    number.trim().parse::<u64>().ok()?.checked_mul(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_units_of_the_field() {
        for (words, bytes) in [
            ("5GB", Some(5_000_000_000)),
            ("512 MiB", Some(512 << 20)),
            ("1kb", Some(1_000)),
            ("7B", Some(7)),
            ("12", Some(12)),
            ("GB", None),
            ("-1GB", None),
            ("99999999999999GB", None),
            ("5 apples", None),
        ] {
            assert_eq!(parse_size(words), bytes, "{words}");
        }
    }
}
