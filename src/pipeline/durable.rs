//! What is written so that it is there whole or not at all, and believed only if nothing has changed in it since.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::Error;
use crate::{
    checkpoint::{self, CHECKSUMS_FILE},
    fault,
};

/// Reads JSON that may be missing or damaged.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes JSON beside its place, forces it to disk and renames it.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    write_text(path, &to_json(value)?)
}

/// Reads what [`write_sealed`] wrote there last, or, where that is missing or damaged, the time before.
pub(super) fn read_sealed<T: DeserializeOwned>(path: &Path) -> Option<T> {
    [path.to_owned(), before(path)].iter().find_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        let sound = unsealed(&text).and_then(|json| serde_json::from_str(json).ok());
        if sound.is_none() {
            tracing::warn!(path = %path.display(), "a checkpoint is damaged and is passed over");
        }
        sound
    })
}

/// Writes JSON under its own hash, and keeps what was there before beside it.
pub(super) fn write_sealed(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    // A second name for it: at no moment is there none under the first.
    if path.exists() {
        let before = before(path);
        let keep = || match fs::remove_file(&before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::hard_link(path, &before).or_else(|_| fs::copy(path, &before).map(drop)),
        };
        keep().map_err(checkpoint::Error::io(&before))?;
    }
    write_text(path, &sealed(&to_json(value)?))
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("before.json")
}

/// A line of JSON behind its hash.
pub(super) fn sealed(json: &str) -> String {
    format!("{} {json}\n", digest(json))
}

/// The JSON of a whole line that is as it was sealed.
pub(super) fn unsealed(line: &str) -> Option<&str> {
    let (hash, json) = line.strip_suffix('\n')?.split_once(' ')?;
    (hash == digest(json)).then_some(json)
}

fn digest(text: &str) -> String {
    format!("{:032x}", u128::from_be_bytes(first_half(Sha256::digest(text).into())))
}

/// Half of a hash tells damage from none.
fn first_half(digest: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|index| digest[index])
}

fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("json.part");
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fault::point("state-synced");
        fs::rename(&beside, path)
    };
    write().map_err(checkpoint::Error::io(path))?;
    path.parent().map_or(Ok(()), sync)
}

/// Fills a folder, seals it with the hashes of its files, and puts it in its place in one rename.
pub(super) fn write_folder(place: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    for left in [place, beside] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(checkpoint::Error::io(left))?;
        }
    }
    fs::create_dir_all(beside).map_err(checkpoint::Error::io(beside))?;
    fill(beside)?;
    fault::point("checkpoint-unsealed");
    checkpoint::write_checksums(beside)?;
    sync(&beside.join(CHECKSUMS_FILE))?;
    sync(beside)?;
    fault::point("checkpoint-synced");
    fs::rename(beside, place).map_err(checkpoint::Error::io(place))?;
    place.parent().map_or(Ok(()), sync)
}

/// Whether the folder is there as [`write_folder`] left it.
pub(super) fn is_sound(folder: &Path) -> bool {
    let sound = checkpoint::checksums_hold(folder);
    if !sound {
        tracing::warn!(path = %folder.display(), "a checkpoint is damaged and is made again");
    }
    sound
}

fn sync(path: &Path) -> Result<(), Error> {
    let sync = || File::open(path)?.sync_all();
    Ok(sync().map_err(checkpoint::Error::io(path))?)
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::internal(format!("a result cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_gives_way_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read_sealed::<u32>(&path), None);
        write_sealed(&path, &1).unwrap();
        write_sealed(&path, &2).unwrap();
        assert_eq!(read_sealed(&path), Some(2));
        let whole = fs::read(&path).unwrap();
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(read_sealed(&path), Some(1), "byte {index}");
            fs::write(&path, &whole[..index]).unwrap();
            assert_eq!(read_sealed(&path), Some(1), "cut at {index}");
        }
    }

    #[test]
    fn a_folder_is_sound_until_something_in_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("layer-0001");
        let fill = |folder: &Path| Ok(fs::write(folder.join("a"), "abc").map_err(checkpoint::Error::io(folder))?);
        for _ in 0..2 {
            write_folder(&place, fill).unwrap();
            assert!(is_sound(&place));
        }
        fs::write(place.join("a"), "abd").unwrap();
        assert!(!is_sound(&place));
        fs::write(place.join("a"), "abc").unwrap();
        fs::write(place.join("b"), "").unwrap();
        assert!(!is_sound(&place), "a file too many");
        fs::remove_dir_all(&place).unwrap();
        assert!(!is_sound(&place));
    }
}
