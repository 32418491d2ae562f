use std::{fmt, str::FromStr};

use super::{DatasetId, JobId};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// `org/name[@revision]` on the hub.
    Hub {
        /// `org/name`.
        repository: String,
        /// Branch, tag or commit; `main` when absent.
        revision: Option<String>,
    },
    /// `file:NAME`: a folder under the models folder.
    Local {
        /// Relative path with `/` between its parts, none of them `.` or `..`.
        name: String,
    },
    /// `job:ID`: what a finished job has published; the factored checkpoint where there are two.
    Job(JobId),
}

/// Where text comes from: a data set known by name, or `file:NAME` under the data sets folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatasetName {
    /// WikiText-2.
    Wikitext2,
    /// Penn Treebank.
    Ptb,
    /// Colossal Clean Crawled Corpus.
    C4,
    /// A text that was uploaded to the service: `ds_…`.
    Uploaded(DatasetId),
    /// The user's own text.
    Local {
        /// Relative path with `/` between its parts, none of them `.` or `..`.
        name: String,
    },
}

const FILE_PREFIX: &str = "file:";
const JOB_PREFIX: &str = "job:";
const LONGEST_NAME: usize = 255;
/// The folder of uploaded texts, under the data sets folder. No name leads there but an id, so that nobody reads a text
/// of somebody else.
pub const UPLOADS: &str = ".uploads";

fn is_word(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !part.is_empty() && part != "." && part != ".." && part.chars().all(plain)
}

fn parse_relative(name: &str) -> Result<String, String> {
    if name.len() > LONGEST_NAME || !name.split('/').all(is_word) {
        return Err(format!(
            "'{FILE_PREFIX}{name}' must be a relative path of letters, digits, '.', '_' and '-' without '..'"
        ));
    }
    Ok(name.to_owned())
}

impl FromStr for ModelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(FILE_PREFIX) {
            return parse_relative(name).map(|name| Self::Local { name });
        }
        if let Some(id) = text.strip_prefix(JOB_PREFIX) {
            return id.parse().map(Self::Job).map_err(|error| format!("'{text}': {error}"));
        }
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let well_formed = text.len() <= LONGEST_NAME
            && repository.split('/').count() == 2
            && repository.split('/').all(is_word)
            && revision.is_none_or(|revision| revision.split('/').all(is_word));
        if !well_formed {
            return Err(format!(
                "'{text}' names no model: use 'org/name', 'org/name@revision', 'file:NAME' for a folder under the models folder, or 'job:ID' for what a finished job has published"
            ));
        }
        Ok(Self::Hub { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repository, revision: None } => f.write_str(repository),
            Self::Hub { repository, revision: Some(revision) } => write!(f, "{repository}@{revision}"),
            Self::Local { name } => write!(f, "{FILE_PREFIX}{name}"),
            Self::Job(id) => write!(f, "{JOB_PREFIX}{id}"),
        }
    }
}

impl FromStr for DatasetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wikitext2" => Ok(Self::Wikitext2),
            "ptb" => Ok(Self::Ptb),
            "c4" => Ok(Self::C4),
            _ if text.starts_with("ds_") => text.parse().map(Self::Uploaded),
            _ => match text.strip_prefix(FILE_PREFIX) {
                Some(name) if name.split('/').next() == Some(UPLOADS) => {
                    Err(format!("'{text}': use the id of an uploaded data set by itself"))
                }
                Some(name) => parse_relative(name).map(|name| Self::Local { name }),
                None => Err(format!(
                    "'{text}' is not a known data set: use wikitext2, ptb, c4, file:NAME for a text under the data sets folder, or the id of an uploaded one"
                )),
            },
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wikitext2 => f.write_str("wikitext2"),
            Self::Ptb => f.write_str("ptb"),
            Self::C4 => f.write_str("c4"),
            Self::Uploaded(id) => id.fmt(f),
            Self::Local { name } => write!(f, "{FILE_PREFIX}{name}"),
        }
    }
}

/// Serialises as the text it was parsed from.
macro_rules! as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(ModelSource);
as_text!(DatasetName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_name_keeps_its_revision() {
        let source: ModelSource = "org/name@refs/pr/1".parse().unwrap();
        assert_eq!(source, ModelSource::Hub { repository: "org/name".into(), revision: Some("refs/pr/1".into()) });
        assert_eq!(source.to_string(), "org/name@refs/pr/1");
    }

    #[test]
    fn a_job_is_named_by_its_whole_id() {
        let text = "job:01890a5d-ac96-774b-bcce-b302099a8057";
        let source: ModelSource = text.parse().unwrap();
        assert!(matches!(source, ModelSource::Job(_)));
        assert_eq!(source.to_string(), text);
        for text in ["job:", "job:1", "job:01890a5dac96774bbcceb302099a8057"] {
            assert!(text.parse::<ModelSource>().unwrap_err().contains("not a job id"), "{text}");
        }
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for text in [
            "file:../x",
            "file:/etc",
            "file:a//b",
            "file:",
            "a/../b",
            "../b",
            "a/b@../c",
            "name",
            "a/b/c",
            "a b/c",
            "a/b@",
        ] {
            assert!(text.parse::<ModelSource>().is_err(), "{text}");
        }
        for text in ["file:../x", "file:/etc", "openwebtext", ""] {
            assert!(text.parse::<DatasetName>().is_err(), "{text}");
        }
    }
}
