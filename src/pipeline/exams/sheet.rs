//! The answers to one task so far: the log-likelihoods of a document's choices, a document a line.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

use crate::{checkpoint, pipeline::Error};

/// The file with the answers to one task so far.
pub(super) struct Sheet {
    path: PathBuf,
    file: File,
}

impl Sheet {
    /// Opens it behind the last whole answer; one of another job is begun anew.
    pub(super) fn open(path: PathBuf, fingerprint: &str) -> Result<(Self, Vec<Vec<f64>>), Error> {
        let head = serde_json::Value::from(fingerprint).to_string();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.split_inclusive('\n');
        let is_ours = lines.next().is_some_and(|line| line.trim_end() == head);
        let whole = lines.filter(|_| is_ours).map_while(|line| serde_json::from_str(line.strip_suffix('\n')?).ok());
        let answers: Vec<Vec<f64>> = whole.collect();
        // Written again whole, so that nothing torn stays in it.
        let file = File::create(&path).map_err(checkpoint::Error::io(&path))?;
        let mut sheet = Self { path, file };
        sheet.append(&format!("{head}\n"))?;
        sheet.write(&answers)?;
        Ok((sheet, answers))
    }

    pub(super) fn write(&mut self, answers: &[Vec<f64>]) -> Result<(), Error> {
        let line = |answer: &Vec<f64>| serde_json::Value::from(answer.clone()).to_string() + "\n";
        self.append(&answers.iter().map(line).collect::<String>())
    }

    fn append(&mut self, text: &str) -> Result<(), Error> {
        Ok(self.file.write_all(text.as_bytes()).map_err(checkpoint::Error::io(&self.path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_up_to_the_last_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dense-piqa.jsonl");
        let open = |fingerprint| Sheet::open(path.clone(), fingerprint).unwrap();
        let (mut sheet, answers) = open("a");
        assert!(answers.is_empty());
        sheet.write(&[vec![-1.5, -2.0], vec![-3.0]]).unwrap();
        sheet.append("[-4.0").unwrap();
        assert_eq!(open("a").1, [vec![-1.5, -2.0], vec![-3.0]]);
        assert_eq!(open("a").1.len(), 2);
        assert!(open("b").1.is_empty());
    }
}
