//! Hidden states of many groups of windows at one boundary between layers, in a file without a name: what waits for
//! its layer costs disk, not memory, and goes with the process.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use candle_core::{Device, Tensor};

use super::Batch;
use crate::checkpoint::Error;

/// One [tokens, width] tensor in f32 for each group.
pub struct States {
    file: File,
    folder: std::path::PathBuf,
    width: usize,
    /// Where each group's numbers begin, in numbers; one more than there are groups.
    starts: Vec<usize>,
}

impl States {
    /// Room for groups of the given sizes, in a file below `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder takes no file.
    pub fn new(folder: &Path, batches: impl IntoIterator<Item = Batch>, width: usize) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder))?;
        let mut starts = vec![0];
        let mut end = 0;
        for batch in batches {
            end += batch.tokens() * width;
            starts.push(end);
        }
        Ok(Self { file, folder: folder.to_owned(), width, starts })
    }

    /// Keeps a group's states [tokens, width].
    ///
    /// # Errors
    /// [`Error::Io`], such as a full disk.
    pub fn put(&self, group: usize, states: &Tensor) -> Result<(), Error> {
        let numbers: Vec<f32> = states.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let at = (self.starts[group] * size_of::<f32>()) as u64;
        self.file.write_all_at(&bytes, at).map_err(Error::io(&self.folder))
    }

    /// A group's states [tokens, width].
    ///
    /// # Errors
    /// [`Error::Io`], also when they were never put.
    pub fn get(&self, group: usize, device: &Device) -> Result<Tensor, Error> {
        let (start, end) = (self.starts[group], self.starts[group + 1]);
        let mut bytes = vec![0; (end - start) * size_of::<f32>()];
        self.file.read_exact_at(&mut bytes, (start * size_of::<f32>()) as u64).map_err(Error::io(&self.folder))?;
        let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Tensor::from_vec(numbers, ((end - start) / self.width, self.width), device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ops::testing::*, *};

    #[test]
    fn groups_of_different_sizes_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let batches = [(2, 3), (1, 3)].map(|(windows, length)| Batch { windows, length });
        let states = States::new(folder.path(), batches, 5).unwrap();
        let (first, second) = (random(1, &[6, 5]), random(2, &[3, 5]));
        states.put(1, &second).unwrap();
        states.put(0, &first).unwrap();
        assert!(distance(&first, &states.get(0, &Device::Cpu).unwrap()) == 0.0);
        assert!(distance(&second, &states.get(1, &Device::Cpu).unwrap()) == 0.0);
    }

    #[test]
    fn what_was_never_put_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let states = States::new(folder.path(), [Batch { windows: 1, length: 2 }], 4).unwrap();
        assert!(states.get(0, &Device::Cpu).is_err());
    }
}
