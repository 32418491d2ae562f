use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::Error;

/// Name of the file, in the format of coreutils' sha256sum.
pub const CHECKSUMS_FILE: &str = "SHA256SUMS";

/// Hashes every file below `folder`, by name, into its SHA256SUMS.
pub fn write_checksums(folder: &Path) -> Result<(), Error> {
    let path = folder.join(CHECKSUMS_FILE);
    fs::write(&path, listing(folder)?).map_err(Error::io(&path))
}

/// Whether the files below `folder` are those that [`write_checksums`] saw, no more and no fewer, and unchanged.
pub fn checksums_hold(folder: &Path) -> bool {
    let written = fs::read_to_string(folder.join(CHECKSUMS_FILE));
    written.is_ok_and(|written| listing(folder).is_ok_and(|found| found == written))
}

fn listing(folder: &Path) -> Result<String, Error> {
    let mut names = Vec::new();
    collect(folder, "", &mut names)?;
    names.sort_unstable();
    let mut text = String::new();
    for name in names.iter().filter(|name| *name != CHECKSUMS_FILE) {
        let digest = sha256(&folder.join(name))?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{digest}  {name}");
    }
    Ok(text)
}

fn collect(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(Error::io(&entry.path()))?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(Error::io(path))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    Ok(hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_once_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/x"), "").unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        for _ in 0..2 {
            write_checksums(folder.path()).unwrap();
            let text = fs::read_to_string(folder.path().join(CHECKSUMS_FILE)).unwrap();
            let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n\
                e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b/x\n";
            assert_eq!(text, expected);
        }
    }
}
