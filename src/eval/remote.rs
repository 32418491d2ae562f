//! Data sets from the hub, in the form the field's tables use.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};

use super::datasets::{SEPARATOR, join_lines};
use crate::{
    checkpoint::{Error, HubSettings, fetch_dataset_file},
    job::DatasetName,
};

/// Records that are taken of C4, whose files hold hundreds of thousands.
const MOST_C4_RECORDS: usize = 20_000;

/// A file on the hub, and how it becomes text.
struct Place {
    repository: &'static str,
    /// Commit or branch.
    revision: &'static str,
    file: String,
    format: Format,
}

enum Format {
    /// One column of a parquet file.
    Parquet { column: &'static str },
    /// Compressed lines of JSON objects, the first few.
    JsonLines { most: usize },
}

/// Fetches a split and joins its records with an empty line.
///
/// # Errors
/// [`Error::DatasetNotFound`] for a split the data set does not have, else as [`fetch_dataset_file`].
pub(super) fn load(name: &DatasetName, split: &str, hub: &HubSettings) -> Result<String, Error> {
    let place =
        place(name, split).ok_or_else(|| Error::DatasetNotFound(format!("the hub has no {split} split of {name}")))?;
    let path = fetch_dataset_file(place.repository, place.revision, &place.file, hub)?;
    let wrong = |what: String| Error::InvalidDataset(format!("{}/{}: {what}", place.repository, place.file));
    match place.format {
        Format::Parquet { column } => read_parquet(&path, column).map_err(wrong),
        Format::JsonLines { most } => read_json_lines(&path, most).map_err(wrong),
    }
}

fn place(name: &DatasetName, split: &str) -> Option<Place> {
    let known = matches!(split, "train" | "validation" | "test");
    match name {
        DatasetName::Wikitext2 if known => Some(Place {
            repository: "Salesforce/wikitext",
            revision: "main",
            file: format!("wikitext-2-raw-v1/{split}-00000-of-00001.parquet"),
            format: Format::Parquet { column: "text" },
        }),
        // The repository itself holds a loading script; the hub keeps its content as parquet on a branch of its own.
        DatasetName::Ptb if known => Some(Place {
            repository: "ptb-text-only/ptb_text_only",
            revision: "refs/convert/parquet",
            file: format!("penn_treebank/{split}/0000.parquet"),
            format: Format::Parquet { column: "sentence" },
        }),
        DatasetName::C4 if split == "train" => Some(c4("en/c4-train.00000-of-01024.json.gz")),
        DatasetName::C4 if split == "validation" => Some(c4("en/c4-validation.00000-of-00008.json.gz")),
        _ => None,
    }
}

fn c4(file: &str) -> Place {
    Place {
        repository: "allenai/c4",
        revision: "main",
        file: file.to_owned(),
        format: Format::JsonLines { most: MOST_C4_RECORDS },
    }
}

fn read_parquet(path: &Path, column: &str) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| format!("is no parquet file: {error}"))?;
    let mut records = Vec::new();
    for row in reader.get_row_iter(None).map_err(|error| error.to_string())? {
        let row = row.map_err(|error| error.to_string())?;
        let text = row.get_column_iter().find_map(|(name, field)| match field {
            Field::Str(text) if name == column => Some(text.clone()),
            _ => None,
        });
        records.push(text.ok_or_else(|| format!("has no text column {column}"))?);
    }
    Ok(records.join(SEPARATOR))
}

fn read_json_lines(path: &Path, most: usize) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let lines = BufReader::new(MultiGzDecoder::new(file)).lines().take(most);
    let text = lines.collect::<Result<Vec<_>, _>>().map_err(|error| format!("cannot be unpacked: {error}"))?;
    join_lines(&text.join("\n"))
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
        let mut writer =
            SerializedFileWriter::new(path.reopen().unwrap(), schema, Arc::new(WriterProperties::default())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&[ByteArray::from("x"), ByteArray::from(""), ByteArray::from("y")], None, None)
            .unwrap();
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
        assert_eq!(read_json_lines(path.path(), 2).unwrap(), "x\n\ny");
    }

    #[test]
    fn splits_that_do_not_exist_are_not_asked_for() {
        assert!(place(&DatasetName::C4, "test").is_none());
        assert!(place(&DatasetName::Wikitext2, "dev").is_none());
    }
}
