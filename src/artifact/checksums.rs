//! `SHA256SUMS`, as `sha256sum` of coreutils writes and reads it: `<hexadecimal>  <name>` a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Artifact, ArtifactError};

/// The file that lists all others.
pub(super) const CHECKSUMS: &str = "SHA256SUMS";

const HEX_DIGITS: usize = 64;
const CHUNK: usize = 1 << 20;

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    move |source| ArtifactError::Io { path: path.to_owned(), source }
}

fn corrupt(path: &Path, what: impl Into<String>) -> ArtifactError {
    ArtifactError::Corrupt { path: path.to_owned(), what: what.into() }
}

/// The files of `folder` by name, `SHA256SUMS` among them; hashes as listed, lengths as they are.
pub(super) fn read(folder: &Path) -> Result<Vec<Artifact>, ArtifactError> {
    let list = folder.join(CHECKSUMS);
    let text = fs::read_to_string(&list).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => corrupt(&list, "is missing"),
        _ => io_error(&list)(source),
    })?;
    let sums = listed(&text).map_err(|what| corrupt(&list, what))?;
    sums.into_iter().map(|(name, sha256)| artifact(folder, name, sha256)).collect()
}

/// The files that a list names, by name, itself among them, each with its hash.
pub(super) fn listed(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut sums = parse(text)?;
    sums.insert(CHECKSUMS.to_owned(), hexadecimal(&Sha256::digest(text.as_bytes())));
    Ok(sums)
}

fn artifact(folder: &Path, name: String, sha256: String) -> Result<Artifact, ArtifactError> {
    let path = folder.join(&name);
    // Of the link itself: what a link points to may change after it was published.
    let metadata = fs::symlink_metadata(&path).map_err(io_error(&path))?;
    if !metadata.is_file() {
        return Err(corrupt(&path, "is not a regular file"));
    }
    Ok(Artifact { name, bytes: metadata.len(), sha256 })
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut sums = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let (sum, name) = split_line(line).ok_or_else(|| format!("line {number} is not '<sha256>  <name>'"))?;
        if !is_inside(name) || name == CHECKSUMS {
            return Err(format!("line {number} names '{name}', which is not a file of the folder"));
        }
        if sums.insert(name.to_owned(), sum.to_owned()).is_some() {
            return Err(format!("line {number} names '{name}' again"));
        }
    }
    Ok(sums)
}

/// The two characters between are a space and the mode: a space for text, `*` for binary.
fn split_line(line: &str) -> Option<(&str, &str)> {
    let (sum, rest) = line.split_at_checked(HEX_DIGITS)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    let is_hexadecimal = sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hexadecimal.then_some((sum, name))
}

/// Whether `name` stays below the folder it is joined to, and is spelt the one way.
fn is_inside(name: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
    name.split('/').all(plain)
}

/// Checks that the files of `folder` are those listed, no more and no fewer, with the listed content.
pub(super) fn verify(folder: &Path) -> Result<Vec<Artifact>, ArtifactError> {
    check(folder, &mut |_| Ok(())).map(|(artifacts, _)| artifacts)
}

/// Checks them, and brings every one of them and every folder to the disk.
pub(super) fn verify_and_sync(folder: &Path) -> Result<(), ArtifactError> {
    let (_, folders) = check(folder, &mut File::sync_all)?;
    folders.iter().try_for_each(|path| sync_folder(path))
}

/// The files, each of which went through `and_then` after it was read, and the folders, each after what is in it.
fn check(
    folder: &Path,
    and_then: &mut dyn FnMut(&File) -> io::Result<()>,
) -> Result<(Vec<Artifact>, Vec<PathBuf>), ArtifactError> {
    let mut unlisted = BTreeSet::new();
    let mut folders = Vec::new();
    walk(folder, "", &mut unlisted, &mut folders)?;
    let artifacts = read(folder)?;
    for artifact in &artifacts {
        let path = folder.join(&artifact.name);
        let (file, found) = hash(&path).map_err(io_error(&path))?;
        if found != artifact.sha256 {
            return Err(corrupt(&path, format!("has SHA-256 {found}, {CHECKSUMS} says {}", artifact.sha256)));
        }
        and_then(&file).map_err(io_error(&path))?;
        unlisted.remove(&artifact.name);
    }
    match unlisted.first() {
        Some(name) => Err(corrupt(&folder.join(name), format!("is not listed in {CHECKSUMS}"))),
        None => Ok((artifacts, folders)),
    }
}

fn walk(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeSet<String>,
    folders: &mut Vec<PathBuf>,
) -> Result<(), ArtifactError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(corrupt(&path, "has a name that is not UTF-8"));
        };
        if entry.file_type().map_err(io_error(&path))?.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), files, folders)?;
        } else {
            files.insert(format!("{prefix}{name}"));
        }
    }
    // After what is in it.
    folders.push(folder.to_owned());
    Ok(())
}

fn hash(path: &Path) -> io::Result<(File, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    Ok((file, hexadecimal(&hasher.finalize())))
}

/// A rename or a new name is on the disk only when its folder is.
pub(super) fn sync_folder(path: &Path) -> Result<(), ArtifactError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error(path))
}

/// Bytes in lower-case hexadecimal, as checksums are written.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn lines_of_both_modes_are_read() {
        let sums = parse(&format!("{SUM}  a.json\n{SUM} *sub/two words\n")).unwrap();
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["a.json", "sub/two words"]);
        assert_eq!(hexadecimal(&Sha256::digest(b"")), SUM);
    }

    #[test]
    fn names_outside_the_folder_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "", "a\\b", CHECKSUMS] {
            assert!(parse(&format!("{SUM}  {name}\n")).is_err(), "{name}");
        }
    }

    #[test]
    fn lines_that_are_no_checksums_are_refused() {
        for line in [
            "",
            "hello",
            &SUM[1..],
            &format!("{} a", &SUM.to_uppercase()),
            &format!("{SUM} a"),
            "é".repeat(40).as_str(),
        ] {
            assert!(parse(&format!("{line}\n")).is_err(), "{line}");
        }
        assert!(parse(&format!("{SUM}  a\n{SUM}  a\n")).is_err(), "a name twice");
    }
}
