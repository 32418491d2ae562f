//! Writing safetensors files: one, or shards with an index.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::Error;

/// A tensor to be written: what the header says, and how to get its bytes when its turn comes.
pub struct Pending<'a> {
    /// Name in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Produces exactly the bytes the shape and type ask for.
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>, Error> + 'a>,
}

impl Pending<'_> {
    fn length(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// Writes the tensors in the order given; returns the bytes of all files. `written` is called after each tensor.
///
/// # Errors
/// Whatever a tensor's own bytes or the file system said.
pub fn write_safetensors(
    folder: &Path,
    tensors: Vec<Pending<'_>>,
    largest_shard: u64,
    mut written: impl FnMut() -> Result<(), Error>,
) -> Result<u64, Error> {
    let shards = split(tensors, largest_shard);
    let count = shards.len();
    let mut weight_map = Map::new();
    let (mut total, mut payload) = (0, 0);
    for (index, shard) in shards.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        for tensor in &shard {
            payload += tensor.length();
            weight_map.insert(tensor.name.clone(), Value::String(name.clone()));
        }
        total += write_file(&folder.join(name), shard, &mut written)?;
    }
    if count > 1 {
        let path = folder.join("model.safetensors.index.json");
        let index = json!({"metadata": {"total_size": payload}, "weight_map": weight_map});
        std::fs::write(&path, format!("{index:#}\n")).map_err(Error::io(&path))?;
    }
    Ok(total)
}

fn split(tensors: Vec<Pending<'_>>, largest_shard: u64) -> Vec<Vec<Pending<'_>>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        let length = tensor.length();
        if filled > 0 && filled + length > largest_shard {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += length;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

fn header(tensors: &[Pending<'_>]) -> Vec<u8> {
    let mut entries = Map::new();
    // Loaders of the field ask for this key.
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.length();
        let entry =
            json!({"dtype": format!("{:?}", tensor.dtype), "shape": tensor.shape, "data_offsets": [offset, end]});
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // Data begin at a multiple of 8, so that readers may map them.
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn write_file(
    path: &Path,
    tensors: Vec<Pending<'_>>,
    written: &mut impl FnMut() -> Result<(), Error>,
) -> Result<u64, Error> {
    let header = header(&tensors);
    let mut total = 8 + header.len() as u64;
    let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(&header))
        .map_err(Error::io(path))?;
    for tensor in tensors {
        let length = tensor.length();
        let bytes = (tensor.bytes)()?;
        if bytes.len() as u64 != length {
            return Err(Error::invalid(
                path,
                format!("{} has {} bytes, its shape asks for {length}", tensor.name, bytes.len()),
            ));
        }
        file.write_all(&bytes).map_err(Error::io(path))?;
        total += length;
        written()?;
    }
    let file = file.into_inner().map_err(|error| Error::Io { path: path.to_owned(), source: error.into_error() })?;
    file.sync_all().map_err(Error::io(path))?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Weights;

    fn tensors() -> Vec<Pending<'static>> {
        (0..5_u8)
            .map(|index| Pending {
                name: format!("t{index}"),
                dtype: Dtype::F32,
                shape: vec![2, 1],
                bytes: Box::new(move || Ok([index; 8].to_vec())),
            })
            .collect()
    }

    #[test]
    fn shards_read_back_whole() {
        for largest in [u64::MAX, 16, 1] {
            let folder = tempfile::tempdir().unwrap();
            let mut steps = 0;
            let total = write_safetensors(folder.path(), tensors(), largest, || {
                steps += 1;
                Ok(())
            })
            .unwrap();
            let weights = Weights::open(folder.path()).unwrap();
            assert_eq!(steps, 5);
            assert_eq!(weights.file_bytes().unwrap(), total);
            for index in 0..5_u8 {
                assert_eq!(weights.bytes(&format!("t{index}")).unwrap(), [index; 8]);
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit_their_shape_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let short = Pending { name: "t".into(), dtype: Dtype::F32, shape: vec![2], bytes: Box::new(|| Ok(vec![0; 7])) };
        assert!(write_safetensors(folder.path(), vec![short], 100, || Ok(())).is_err());
    }
}
