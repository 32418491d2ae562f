//! Hidden states of many groups of windows at one boundary between layers, in a file without a name: what waits for
//! its layer costs disk, not memory, and goes with the process. Where they are small, memory holds them.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use candle_core::{Device, Tensor};

use super::Batch;
use crate::checkpoint::Error;

/// One [tokens, width] tensor in f32 for each group.
pub struct States(Kept);

enum Kept {
    Memory(Vec<Mutex<Option<Tensor>>>),
    Disk {
        file: File,
        folder: PathBuf,
        width: usize,
        /// Where each group's numbers begin, in numbers; one more than there are groups.
        starts: Vec<usize>,
    },
}

impl States {
    /// Room for groups of the given sizes, in a file below `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder takes no file.
    pub fn on_disk(folder: &Path, batches: impl IntoIterator<Item = Batch>, width: usize) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io(folder))?;
        let mut starts = vec![0];
        let mut end = 0;
        for batch in batches {
            end += batch.tokens() * width;
            starts.push(end);
        }
        Ok(Self(Kept::Disk { file, folder: folder.to_owned(), width, starts }))
    }

    /// Room for so many groups, in memory.
    pub fn in_memory(groups: usize) -> Self {
        Self(Kept::Memory((0..groups).map(|_| Mutex::default()).collect()))
    }

    /// Keeps a group's states [tokens, width].
    ///
    /// # Errors
    /// [`Error::Io`], such as a full disk.
    pub fn put(&self, group: usize, states: &Tensor) -> Result<(), Error> {
        match &self.0 {
            Kept::Memory(all) => {
                *all[group].lock().unwrap_or_else(PoisonError::into_inner) = Some(states.clone());
                Ok(())
            }
            Kept::Disk { file, folder, starts, .. } => {
                let numbers: Vec<f32> = states.flatten_all()?.to_vec1()?;
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                let at = (starts[group] * size_of::<f32>()) as u64;
                file.write_all_at(&bytes, at).map_err(Error::io(folder))
            }
        }
    }

    /// A group's states [tokens, width].
    ///
    /// # Errors
    /// [`Error::Io`], also when they were never put.
    pub fn get(&self, group: usize, device: &Device) -> Result<Tensor, Error> {
        match &self.0 {
            Kept::Memory(all) => {
                let states = all[group].lock().unwrap_or_else(PoisonError::into_inner).clone();
                states.ok_or_else(|| Error::io(Path::new("hidden states"))(std::io::ErrorKind::UnexpectedEof.into()))
            }
            Kept::Disk { file, folder, width, starts } => {
                let (start, end) = (starts[group], starts[group + 1]);
                let mut bytes = vec![0; (end - start) * size_of::<f32>()];
                file.read_exact_at(&mut bytes, (start * size_of::<f32>()) as u64).map_err(Error::io(folder))?;
                let numbers: Vec<f32> =
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                Ok(Tensor::from_vec(numbers, ((end - start) / width, *width), device)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ops::testing::*, *};

    #[test]
    fn groups_of_different_sizes_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let batches = [(2, 3), (1, 3)].map(|(windows, length)| Batch { windows, length });
        let (first, second) = (random(1, &[6, 5]), random(2, &[3, 5]));
        for states in [States::on_disk(folder.path(), batches, 5).unwrap(), States::in_memory(2)] {
            states.put(1, &second).unwrap();
            states.put(0, &second).unwrap();
            states.put(0, &first).unwrap();
            assert!(distance(&first, &states.get(0, &Device::Cpu).unwrap()) == 0.0);
            assert!(distance(&second, &states.get(1, &Device::Cpu).unwrap()) == 0.0);
        }
    }

    #[test]
    fn what_was_never_put_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let on_disk = States::on_disk(folder.path(), [Batch { windows: 1, length: 2 }], 4).unwrap();
        assert!(on_disk.get(0, &Device::Cpu).is_err());
        assert!(States::in_memory(1).get(0, &Device::Cpu).is_err());
    }
}
