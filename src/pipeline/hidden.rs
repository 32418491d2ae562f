//! Hidden states at the input of every redundant layer, on disk: the iterative schedule works from the deepest layer
//! up, so what lies below the layer at work never changes, and memory does not grow with the calibration set.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use candle_core::Tensor;

use super::{Error, gradients::Hidden};
use crate::{
    checkpoint,
    eval::Windows,
    model::{Batch, Decoder},
};

/// One file per layer: [windows, length, hidden] in f32.
pub(super) struct HiddenCache {
    folder: PathBuf,
    window_bytes: usize,
}

impl HiddenCache {
    /// Runs the calibration windows forward once, up to the deepest of `layers`, and keeps the input of each of them.
    pub(super) fn fill(
        folder: &Path,
        decoder: &Decoder,
        windows: &Windows,
        layers: &[usize],
        observe: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(checkpoint::Error::io(folder))?;
        let cache = Self {
            folder: folder.to_owned(),
            window_bytes: windows.length * decoder.config.hidden_size * size_of::<f32>(),
        };
        let files = layers.iter().map(|&layer| {
            let path = cache.path(layer);
            Ok((layer, File::create(&path).map_err(checkpoint::Error::io(&path))?, path))
        });
        let files = files.collect::<Result<Vec<_>, Error>>()?;
        for (index, window) in windows.windows.iter().enumerate() {
            let batch = Batch { windows: 1, length: windows.length };
            let mut hidden = decoder.embed(&[window])?;
            let mut at = 0;
            for (layer, file, path) in &files {
                hidden = decoder.forward(hidden, at..*layer, batch)?;
                at = *layer;
                let numbers: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                file.write_all_at(&bytes, (index * cache.window_bytes) as u64).map_err(checkpoint::Error::io(path))?;
            }
            observe(index)?;
        }
        Ok(cache)
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.folder.join(format!("layer-{layer:04}.f32"))
    }
}

impl Hidden for HiddenCache {
    fn at(&self, decoder: &Decoder, layer: usize, first: usize, windows: &[&[u32]]) -> Result<Tensor, Error> {
        let path = self.path(layer);
        let mut bytes = vec![0; windows.len() * self.window_bytes];
        let file = File::open(&path).map_err(checkpoint::Error::io(&path))?;
        file.read_exact_at(&mut bytes, (first * self.window_bytes) as u64).map_err(checkpoint::Error::io(&path))?;
        let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let shape = (numbers.len() / decoder.config.hidden_size, decoder.config.hidden_size);
        Ok(Tensor::from_vec(numbers, shape, &decoder.device)?)
    }
}

impl Drop for HiddenCache {
    fn drop(&mut self) {
        // What stays behind goes with the job's work folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
