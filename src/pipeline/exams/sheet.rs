//! The answers to one task so far, a document a line, each behind its hash: the log-likelihoods of its choices, or what the
//! model wrote.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, Write as _},
    marker::PhantomData,
    path::PathBuf,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    checkpoint,
    pipeline::{
        Error,
        durable::{sealed, unsealed},
    },
};

/// The file with the answers to one task so far.
pub(super) struct Sheet<A> {
    path: PathBuf,
    file: File,
    kind: PhantomData<fn() -> A>,
}

impl<A: Serialize + DeserializeOwned> Sheet<A> {
    /// Opens it behind the last whole answer, and gives the answers before; one of another job is begun anew.
    pub(super) fn open(
        path: PathBuf,
        fingerprint: &str,
    ) -> Result<(Self, impl Iterator<Item = Result<A, Error>> + use<A>), Error> {
        let head = sealed(&serde_json::Value::from(fingerprint).to_string());
        let (answers, whole) = found::<A>(&path, &head).unwrap_or_default();
        let open = || -> io::Result<File> {
            let mut file = File::options().write(true).create(true).truncate(false).open(&path)?;
            // Nothing torn stays in it.
            file.set_len(whole)?;
            file.seek(io::SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(checkpoint::Error::io(&path))?;
        let mut sheet = Self { path: path.clone(), file, kind: PhantomData };
        if whole == 0 {
            sheet.append(&head)?;
        }
        let read = File::open(&path).map_err(checkpoint::Error::io(&path))?;
        let lines = BufReader::new(read).lines().skip(1).take(answers).map(move |line| {
            let line = line.map_err(checkpoint::Error::io(&path))? + "\n";
            let changed = || checkpoint::Error::invalid(&path, "changed while it was read");
            Ok(answer::<A>(&line).ok_or_else(changed)?)
        });
        Ok((sheet, lines))
    }

    pub(super) fn write(&mut self, answers: &[A]) -> Result<(), Error> {
        let line = |answer| serde_json::to_string(answer).map(|json| sealed(&json));
        let lines: Result<String, serde_json::Error> = answers.iter().map(line).collect();
        self.append(&lines.map_err(io::Error::from).map_err(checkpoint::Error::io(&self.path))?)
    }

    fn append(&mut self, text: &str) -> Result<(), Error> {
        Ok(self.file.write_all(text.as_bytes()).map_err(checkpoint::Error::io(&self.path))?)
    }
}

/// The answer of a whole line that is as it was written.
fn answer<A: DeserializeOwned>(line: &str) -> Option<A> {
    serde_json::from_str(unsealed(line)?).ok()
}

/// How many whole answers a file has behind `head`, and the bytes of both; `None` for a file of another job.
fn found<A: DeserializeOwned>(path: &std::path::Path, head: &str) -> Option<(usize, u64)> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    let (mut answers, mut whole, mut line) = (0, 0, String::new());
    while reader.read_line(&mut line).ok()? > 0 {
        match whole {
            0 if line == head => {}
            0 => return None,
            _ if answer::<A>(&line).is_some() => answers += 1,
            _ => break,
        }
        whole += line.len() as u64;
        line.clear();
    }
    Some((answers, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_up_to_the_last_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dense-piqa.jsonl");
        let open = |fingerprint| {
            let (sheet, answers) = Sheet::<Vec<f64>>::open(path.clone(), fingerprint).unwrap();
            (sheet, answers.collect::<Result<Vec<_>, _>>().unwrap())
        };
        let (mut sheet, answers) = open("a");
        assert!(answers.is_empty());
        sheet.write(&[vec![-1.5, -2.0], vec![-3.0]]).unwrap();
        sheet.append("[-4.0").unwrap();
        assert_eq!(open("a").1, [vec![-1.5, -2.0], vec![-3.0]]);
        assert_eq!(open("a").1.len(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("-3.0", "-3.5")).unwrap();
        assert_eq!(open("a").1, [vec![-1.5, -2.0]], "a changed answer is not believed");
        assert!(open("b").1.is_empty());
    }
}
