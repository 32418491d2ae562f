//! Documents as tokens, in a file: memory does not grow with their number.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::checkpoint::Error;

/// A question as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// A sequence for each choice.
    pub(super) sequences: Vec<Sequence>,
    /// The choices' lengths in characters.
    pub(super) lengths: Vec<usize>,
    /// The right choice; none where the data name one that is not there.
    pub(super) gold: Option<usize>,
}

/// Tokens of which the last ones are scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sequence {
    /// All of them; the first is never scored, as it has nothing before it.
    pub(super) tokens: Vec<u32>,
    /// How many are scored.
    pub(super) scored: usize,
}

impl Sequence {
    /// What the model reads: nothing where nothing is scored.
    pub(super) fn read(&self) -> &[u32] {
        if self.scored == 0 { &[] } else { &self.tokens[..self.tokens.len() - 1] }
    }

    /// The tokens that it should have said.
    pub(super) fn targets(&self) -> &[u32] {
        &self.tokens[self.tokens.len() - self.scored..]
    }
}

impl Document {
    /// A single sequence.
    pub(super) fn of(sequence: Sequence) -> Self {
        Self { sequences: vec![sequence], ..Self::default() }
    }

    /// Tokens of its longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.read().len()).max().unwrap_or(0)
    }

    /// Tokens that go through the model, what a sequence shares with the one before counted once.
    pub fn tokens(&self) -> usize {
        let before = std::iter::once(&[][..]).chain(self.sequences.iter().map(Sequence::read));
        let news = self.sequences.iter().zip(before).map(|(sequence, before)| {
            let read = sequence.read();
            read.len() - read.iter().zip(before).take_while(|(a, b)| a == b).count()
        });
        news.sum()
    }
}

/// Documents in a file.
#[derive(Debug)]
pub struct Documents {
    path: PathBuf,
    /// How many.
    pub count: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// Tokens that go through the model in all.
    pub tokens: u64,
}

impl Documents {
    /// Reads them again, in order.
    ///
    /// # Errors
    /// [`Error::Io`] when the file does not open; so does an item that cannot be read.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<Document, Error>> + use<>, Error> {
        let path = self.path.clone();
        let file = File::open(&path).map_err(Error::io(&path))?;
        Ok(BufReader::new(file).lines().map(move |line| {
            let read = line.and_then(|line| Ok(serde_json::from_str(&line)?));
            read.map_err(Error::io(&path))
        }))
    }
}

/// Writes documents to their file.
pub(super) struct Writer {
    file: BufWriter<File>,
    documents: Documents,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io(path))?;
        let documents = Documents { path: path.to_owned(), count: 0, longest: 0, tokens: 0 };
        Ok(Self { file: BufWriter::new(file), documents })
    }

    pub(super) fn push(&mut self, document: &Document) -> Result<(), Error> {
        let Self { file, documents } = self;
        documents.count += 1;
        documents.longest = documents.longest.max(document.longest());
        documents.tokens += document.tokens() as u64;
        let written = serde_json::to_writer(&mut *file, document).map_err(std::io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).map_err(Error::io(&documents.path))
    }

    pub(super) fn finish(mut self) -> Result<Documents, Error> {
        self.file.flush().map_err(Error::io(&self.documents.path))?;
        Ok(self.documents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_as_they_were_and_shared_tokens_count_once() {
        let sequence = |tokens: &[u32], scored| Sequence { tokens: tokens.to_vec(), scored };
        let choices = vec![sequence(&[1, 2, 3, 4], 2), sequence(&[1, 2, 5, 6, 7], 3), sequence(&[1, 2], 0)];
        let question = Document { sequences: choices, lengths: vec![3, 4, 0], gold: Some(1) };
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&folder.path().join("documents.jsonl")).unwrap();
        let all = [question, Document::of(sequence(&[9, 8, 7], 2))];
        for document in &all {
            writer.push(document).unwrap();
        }
        let documents = writer.finish().unwrap();
        assert_eq!((documents.count, documents.longest, documents.tokens), (2, 4, 3 + 2 + 2));
        assert_eq!(documents.read().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), all);
    }
}
