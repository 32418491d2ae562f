//! Data sets on the hub, in the form that the field's perplexity tables use.
//!
//! `WikiText-2` is the raw variant of Salesforce/wikitext; the Penn Treebank is the hub's own parquet conversion of
//! ptb-text-only/ptb_text_only; C4 is the first file of a split of allenai/c4 (en), which holds hundreds of thousands
//! of records, of which the first few are taken. Records are joined with an empty line everywhere. For the Penn
//! Treebank the literature has both an empty line and a space: the empty line is what GPTQ and the tables after it
//! began with, and what graspd does with every text.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};

use super::records::{Joined, LONGEST, join_lines};
use crate::{
    checkpoint::{Error, HubSettings, fetch_dataset_file},
    job::DatasetName,
};

/// Records of C4's train split that are taken: some 20 MB of text.
const C4_TRAIN_RECORDS: usize = 10_000;
/// Records of C4's validation split that are taken, as GPTQ does.
const C4_VALIDATION_RECORDS: usize = 1_100;

/// A file on the hub, and how it becomes text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    repository: &'static str,
    revision: &'static str,
    file: String,
    packing: Packing,
}

#[derive(Debug, PartialEq, Eq)]
enum Packing {
    /// One column of a parquet file.
    Parquet { column: &'static str },
    /// Compressed lines of JSON objects, the first few.
    GzippedLines { most: usize },
}

/// The split that models are scored on.
pub(super) fn evaluation_split(name: &DatasetName) -> &'static str {
    match name {
        DatasetName::C4 => "validation",
        DatasetName::Wikitext2 | DatasetName::Ptb | DatasetName::Local { .. } | DatasetName::Uploaded(_) => "test",
    }
}

/// Where a split is; `None` when the hub does not have it.
pub(super) fn source(name: &DatasetName, split: &str) -> Option<Source> {
    let known = matches!(split, "train" | "validation" | "test");
    match name {
        DatasetName::Wikitext2 if known => Some(Source {
            repository: "Salesforce/wikitext",
            revision: "b08601e04326c79dfdd32d625aee71d232d685c3",
            file: format!("wikitext-2-raw-v1/{split}-00000-of-00001.parquet"),
            packing: Packing::Parquet { column: "text" },
        }),
        // The repository itself holds a loading script; the hub keeps its content as parquet on a branch of its own.
        DatasetName::Ptb if known => Some(Source {
            repository: "ptb-text-only/ptb_text_only",
            revision: "refs/convert/parquet",
            file: format!("penn_treebank/{split}/0000.parquet"),
            packing: Packing::Parquet { column: "sentence" },
        }),
        DatasetName::C4 if split == "train" => Some(c4("en/c4-train.00000-of-01024.json.gz", C4_TRAIN_RECORDS)),
        DatasetName::C4 if split == "validation" => {
            Some(c4("en/c4-validation.00000-of-00008.json.gz", C4_VALIDATION_RECORDS))
        }
        DatasetName::Wikitext2
        | DatasetName::Ptb
        | DatasetName::C4
        | DatasetName::Local { .. }
        | DatasetName::Uploaded(_) => None,
    }
}

fn c4(file: &str, most: usize) -> Source {
    let packing = Packing::GzippedLines { most };
    let revision = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2";
    Source { repository: "allenai/c4", revision, file: file.to_owned(), packing }
}

impl Source {
    /// Fetches the file unless it is in the cache, and joins its records.
    pub(super) fn load(&self, hub: &HubSettings) -> Result<String, Error> {
        let path = fetch_dataset_file(self.repository, self.revision, &self.file, hub, &mut |_, _, _| true)?;
        let text = match self.packing {
            Packing::Parquet { column } => read_parquet(&path, column),
            Packing::GzippedLines { most } => read_gzipped_lines(&path, most),
        };
        text.map_err(|what| Error::InvalidDataset(format!("{}/{}: {what}", self.repository, self.file)))
    }
}

fn read_parquet(path: &Path, column: &str) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| format!("is not a parquet file: {error}"))?;
    let mut joined = Joined::default();
    for row in reader.get_row_iter(None).map_err(|error| error.to_string())? {
        let row = row.map_err(|error| error.to_string())?;
        let text = row.get_column_iter().find_map(|(name, field)| match field {
            Field::Str(text) if name == column => Some(text),
            _ => None,
        });
        joined.push(text.ok_or_else(|| format!("has a row without text in the column {column}"))?)?;
    }
    joined.finish()
}

fn read_gzipped_lines(path: &Path, most: usize) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    // A few kilobytes of gzip can stand for gigabytes.
    join_lines(BufReader::new(MultiGzDecoder::new(file).take(LONGEST)), most)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc};

    use flate2::{Compression, write::GzEncoder};
    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;

    #[test]
    fn a_parquet_column_is_joined_in_order() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let schema = Arc::new(parse_message_type("message m { REQUIRED BINARY text (UTF8); }").unwrap());
        let properties = Arc::new(WriterProperties::default());
        let mut writer = SerializedFileWriter::new(path.reopen().unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let records = ["x", "", "y"].map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&records, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        assert_eq!(read_parquet(path.path(), "text").unwrap(), "x\n\n\n\ny");
        assert!(read_parquet(path.path(), "sentence").unwrap_err().contains("sentence"));
    }

    #[test]
    fn compressed_lines_stop_at_their_limit() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = GzEncoder::new(path.reopen().unwrap(), Compression::fast());
        gzip.write_all(b"{\"text\": \"x\"}\n{\"text\": \"y\"}\n{\"text\": \"z\"}\n").unwrap();
        gzip.finish().unwrap();
        assert_eq!(read_gzipped_lines(path.path(), 2).unwrap(), "x\n\ny");
    }

    #[test]
    fn splits_that_do_not_exist_are_not_asked_for() {
        assert_eq!(source(&DatasetName::C4, "test"), None);
        assert_eq!(source(&DatasetName::Wikitext2, "dev"), None);
        for name in [DatasetName::Wikitext2, DatasetName::Ptb, DatasetName::C4] {
            assert!(source(&name, "train").is_some() && source(&name, evaluation_split(&name)).is_some());
        }
    }
}
