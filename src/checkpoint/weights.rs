//! Reading safetensors files, single or sharded.
//!
//! Tensors are read into buffers, never mapped: a file that shrinks while it is read is then an error of the job and
//! not a signal to the process, and what was read does not stay resident.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use super::Error;

/// The longest header that is read, in bytes; the format's own limit.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;
const INDEX_FILE: &str = "model.safetensors.index.json";
const SINGLE_FILE: &str = "model.safetensors";

/// Where a tensor lies and what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    shard: usize,
    offset: u64,
    bytes: usize,
}

impl TensorEntry {
    /// Numbers in it.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Length in the file.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

struct Shard {
    path: PathBuf,
    file: File,
}

/// All tensors of a model folder, by name, unread until asked for.
pub struct Weights {
    shards: Vec<Shard>,
    entries: BTreeMap<String, TensorEntry>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Reads the headers of `model.safetensors`, or of the shards its index names.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the file that is missing, truncated or contradicts itself or its index.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let index_path = folder.join(INDEX_FILE);
        if !index_path.exists() {
            return Self::from_files(folder, &[SINGLE_FILE.to_owned()], None);
        }
        let text = std::fs::read(&index_path).map_err(Error::io(&index_path))?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(INDEX_FILE, format!("is not a safetensors index: {error}")))?;
        let mut files: Vec<String> = index.weight_map.values().cloned().collect();
        files.sort_unstable();
        files.dedup();
        if files.is_empty() {
            return Err(Error::invalid(INDEX_FILE, "its weight_map is empty"));
        }
        for file in &files {
            if file.contains(['/', '\\']) || !file.ends_with(".safetensors") {
                return Err(Error::invalid(
                    INDEX_FILE,
                    format!("weight_map names {file:?}, which is no plain file name"),
                ));
            }
        }
        Self::from_files(folder, &files, Some(&index))
    }

    fn from_files(folder: &Path, files: &[String], index: Option<&Index>) -> Result<Self, Error> {
        let mut weights = Self { shards: Vec::new(), entries: BTreeMap::new() };
        for name in files {
            let path = folder.join(name);
            let file = File::open(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::invalid(name, "is missing from the model's folder"),
                _ => Error::Io { path: path.clone(), source: error },
            })?;
            let shard = weights.shards.len();
            for (tensor, entry) in read_header(&file, &path, name, shard)? {
                // Some repositories repeat a tensor in two shards; the index says which one counts.
                let elsewhere = index.and_then(|index| index.weight_map.get(&tensor)).is_some_and(|file| file != name);
                if !elsewhere && weights.entries.insert(tensor.clone(), entry).is_some() {
                    return Err(Error::invalid(name, format!("holds {tensor}, which another shard holds too")));
                }
            }
            weights.shards.push(Shard { path, file });
        }
        if let Some(missing) =
            index.and_then(|index| index.weight_map.keys().find(|name| !weights.entries.contains_key(*name)))
        {
            return Err(Error::invalid(INDEX_FILE, format!("names {missing}, which no shard holds")));
        }
        Ok(weights)
    }

    /// Names and entries, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Finds a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.entries.get(name)
    }

    /// Bytes of all files, headers included.
    pub fn file_bytes(&self) -> Result<u64, Error> {
        self.shards
            .iter()
            .map(|shard| shard.file.metadata().map(|meta| meta.len()).map_err(Error::io(&shard.path)))
            .sum()
    }

    fn required(&self, name: &str) -> Result<&TensorEntry, Error> {
        self.get(name).ok_or_else(|| Error::invalid(self.file_of(None), format!("holds no tensor {name}")))
    }

    fn file_of(&self, entry: Option<&TensorEntry>) -> PathBuf {
        let path = &self.shards[entry.map_or(0, |entry| entry.shard)].path;
        path.file_name().map_or_else(|| path.clone(), PathBuf::from)
    }

    /// The bytes of a tensor as they are in the file.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let entry = self.required(name)?;
        let mut buffer = vec![0; entry.bytes];
        let shard = &self.shards[entry.shard];
        shard.file.read_exact_at(&mut buffer, entry.offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::invalid(self.file_of(Some(entry)), "became shorter while it was read")
            }
            _ => Error::Io { path: shard.path.clone(), source: error },
        })?;
        Ok(buffer)
    }

    /// The numbers of a tensor, widened to single precision.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is missing, has another shape or holds numbers that are not finite;
    /// [`Error::Unsupported`] when it is not f32, bf16 or f16.
    pub fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let entry = self.required(name)?;
        if entry.shape != shape {
            let what = format!("{name} has the shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(Error::invalid(self.file_of(Some(entry)), what));
        }
        let numbers = widen(&self.bytes(name)?, entry.dtype).ok_or_else(|| {
            Error::Unsupported(format!("{name} is stored as {:?}: graspd reads F32, BF16 and F16", entry.dtype))
        })?;
        if !numbers.par_chunks(1 << 16).all(|chunk| chunk.iter().all(|x| x.is_finite())) {
            return Err(Error::invalid(
                self.file_of(Some(entry)),
                format!("{name} holds numbers that are not finite (NaN or infinity)"),
            ));
        }
        Ok(numbers)
    }

    /// As [`Self::numbers`], as a tensor on `device`.
    pub fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, Error> {
        Ok(Tensor::from_vec(self.numbers(name, shape)?, shape, device)?)
    }
}

/// What a file is that begins like this and is no safetensors file.
fn foreign_format(prefix: [u8; 8]) -> Option<&'static str> {
    match prefix {
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file"),
        [b'P', b'K', 3, 4, ..] => Some("a zip archive, as torch.save writes it"),
        // The protocol of a pickle, then its first instruction.
        [0x80, 2..=5, b'}' | b']' | b'c' | b'(' | 0x8a | 0x95, ..] => Some("a pickle, which may run code"),
        _ => None,
    }
}

fn read_header(file: &File, path: &Path, name: &str, shard: usize) -> Result<Vec<(String, TensorEntry)>, Error> {
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(|_| Error::invalid(name, "is too short to be a safetensors file"))?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > LONGEST_HEADER || header_length + 8 > length {
        let what = match foreign_format(prefix) {
            Some(format) => format!("is {format}, whatever its name says: only safetensors files are read"),
            None => format!(
                "is truncated or no safetensors file: its header claims {header_length} bytes, the file has {length}"
            ),
        };
        return Err(Error::invalid(name, what));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact_at(&mut header, 8).map_err(Error::io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Error::invalid(name, format!("has a header that cannot be read: {error}")))?;
    let data = header_length + 8;
    let mut spans = Vec::new();
    let mut entries = Vec::new();
    for (tensor, info) in metadata.tensors() {
        let (begin, end) = info.data_offsets;
        let wanted = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size))
            .map(|bits| bits.div_ceil(8))
            .filter(|&bytes| end.checked_sub(begin) == Some(bytes));
        let Some(bytes) = wanted else {
            return Err(Error::invalid(
                name,
                format!("the header lies about {tensor}: its offsets do not fit its shape"),
            ));
        };
        spans.push((begin, end));
        entries.push((
            tensor,
            TensorEntry { dtype: info.dtype, shape: info.shape.clone(), shard, offset: data + begin as u64, bytes },
        ));
    }
    check_spans(spans, length - data).map_err(|what| Error::invalid(name, what))?;
    Ok(entries)
}

/// The tensors must fill the data part without gap or overlap.
fn check_spans(mut spans: Vec<(usize, usize)>, data: u64) -> Result<(), String> {
    spans.sort_unstable();
    let mut end = 0;
    for (begin, next) in spans {
        if begin != end {
            return Err("the header lies: its tensors overlap or leave gaps".to_owned());
        }
        end = next;
    }
    if end as u64 == data {
        return Ok(());
    }
    Err(format!("is truncated or padded: its header describes {end} bytes of data, the file holds {data}"))
}

fn widen(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(convert(bytes, |b: [u8; 4]| f32::from_le_bytes(b))),
        Dtype::BF16 => Some(convert(bytes, |b: [u8; 2]| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => Some(convert(bytes, |b: [u8; 2]| f16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    bytes.as_chunks::<N>().0.par_iter().with_min_len(1 << 14).map(|chunk| number(*chunk)).collect()
}

/// Rounds to `dtype` (nearest, ties to even) as the bytes a file holds.
///
/// # Errors
/// [`Error::Unsupported`] for anything but f32, bf16 and f16.
pub fn narrow(numbers: &[f32], dtype: Dtype) -> Result<Vec<u8>, Error> {
    match dtype {
        Dtype::F32 => Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Dtype::BF16 => Ok(numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()),
        Dtype::F16 => Ok(numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        other => Err(Error::Unsupported(format!("checkpoints are written as F32, BF16 or F16, not {other:?}"))),
    }
}

/// What `numbers` become when they are written as `dtype` and read again.
pub fn round_to(numbers: &[f32], dtype: Dtype) -> Result<Vec<f32>, Error> {
    let bytes = narrow(numbers, dtype)?;
    widen(&bytes, dtype).ok_or_else(|| Error::Unsupported(format!("{dtype:?} cannot be read back")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, header: &str, data: &[u8]) {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        std::fs::write(folder.join(SINGLE_FILE), file).unwrap();
    }

    fn complaint(header: &str, data: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), header, data);
        Weights::open(folder.path()).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn headers_that_lie_are_refused() {
        for (header, data, words) in [
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 4][..], "truncated"),
            (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, &[0; 8][..], "cannot be read"),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, &[0; 8][..], ""),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, &[0; 12][..], "cannot be read"),
            (r#"{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,8]}}"#, &[0; 8][..], ""),
            (r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8][..], "cannot be read"),
            ("not json", &[][..], "cannot be read"),
        ] {
            let complaint = complaint(header, data);
            assert!(complaint.starts_with("model.safetensors") && complaint.contains(words), "{header}: {complaint}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SINGLE_FILE), u64::MAX.to_le_bytes()).unwrap();
        assert!(Weights::open(folder.path()).is_err());
    }

    #[test]
    fn other_formats_are_told_by_their_content() {
        let folder = tempfile::tempdir().unwrap();
        for (content, words) in [
            (&b"GGUF\x03\x00\x00\x00 and so on"[..], "a GGUF file"),
            (b"PK\x03\x04\x00\x00\x08\x08 and so on", "a zip archive"),
            (b"\x80\x02}q\x00(X\x05 and so on", "a pickle"),
        ] {
            std::fs::write(folder.path().join(SINGLE_FILE), content).unwrap();
            let complaint = Weights::open(folder.path()).err().unwrap().to_string();
            assert!(complaint.contains(words), "{complaint}");
        }
    }

    #[test]
    fn numbers_survive_their_own_type() {
        let numbers = [1.0, -2.5, 0.0, 3.140_625];
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
            assert_eq!(round_to(&numbers, dtype).unwrap(), numbers);
        }
    }
}
