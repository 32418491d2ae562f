//! Documents as tokens, in a file: memory does not grow with their number.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::checkpoint::Error;

/// Something that is asked, as tokens.
pub trait Item: Serialize + DeserializeOwned + Send + Sync {
    /// Tokens that are asked at once; a single document may have more.
    const AT_ONCE: usize;

    /// Tokens of its longest sequence.
    fn longest(&self) -> usize;

    /// Tokens that go through the model.
    fn tokens(&self) -> usize;
}

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
}

impl Item for Document {
    const AT_ONCE: usize = 2048;

    fn longest(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.read().len()).max().unwrap_or(0)
    }

    /// What a sequence shares with the one before is counted once.
    fn tokens(&self) -> usize {
        let before = std::iter::once(&[][..]).chain(self.sequences.iter().map(Sequence::read));
        let news = self.sequences.iter().zip(before).map(|(sequence, before)| {
            let read = sequence.read();
            read.len() - read.iter().zip(before).take_while(|(a, b)| a == b).count()
        });
        news.sum()
    }
}

/// How many documents, and how long they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    /// How many.
    pub count: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// Tokens that go through the model in all.
    pub tokens: u64,
}

/// Documents in a file.
#[derive(Debug)]
pub struct Documents<D> {
    path: PathBuf,
    /// How many, and how long.
    pub volume: Volume,
    kind: PhantomData<fn() -> D>,
}

impl<D: Item> Documents<D> {
    /// Reads them again, in order.
    ///
    /// # Errors
    /// [`Error::Io`] when the file does not open; so does an item that cannot be read.
    pub fn read(&self) -> Result<impl Iterator<Item = Result<D, Error>> + use<D>, Error> {
        let path = self.path.clone();
        let file = File::open(&path).map_err(Error::io(&path))?;
        Ok(BufReader::new(file).lines().map(move |line| {
            let read = line.and_then(|line| Ok(serde_json::from_str(&line)?));
            read.map_err(Error::io(&path))
        }))
    }
}

/// Writes documents to their file.
pub(super) struct Writer<D> {
    file: BufWriter<File>,
    documents: Documents<D>,
}

impl<D: Item> Writer<D> {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io(path))?;
        let documents = Documents { path: path.to_owned(), volume: Volume::default(), kind: PhantomData };
        Ok(Self { file: BufWriter::new(file), documents })
    }

    pub(super) fn push(&mut self, document: &D) -> Result<(), Error> {
        let Self { file, documents: Documents { path, volume, .. } } = self;
        volume.count += 1;
        volume.longest = volume.longest.max(document.longest());
        volume.tokens += document.tokens() as u64;
        let written = serde_json::to_writer(&mut *file, document).map_err(std::io::Error::from);
        written.and_then(|()| file.write_all(b"\n")).map_err(Error::io(path))
    }

    pub(super) fn finish(mut self) -> Result<Documents<D>, Error> {
        self.file.flush().map_err(Error::io(&self.documents.path))?;
        Ok(self.documents)
    }
}

/// The next documents, as many as are asked at once; none at the end.
///
/// # Errors
/// That of a document that cannot be read.
pub fn next_batch<D: Item>(
    documents: &mut std::iter::Peekable<impl Iterator<Item = Result<D, Error>>>,
) -> Result<Vec<D>, Error> {
    let (mut batch, mut tokens): (Vec<D>, usize) = (Vec::new(), 0);
    loop {
        let fits = |next: &Result<D, Error>| {
            batch.is_empty() || next.as_ref().map_or(true, |next| tokens + next.tokens() <= D::AT_ONCE)
        };
        let Some(next) = documents.next_if(fits) else { return Ok(batch) };
        let next = next?;
        tokens += next.tokens();
        batch.push(next);
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
        let Volume { count, longest, tokens } = documents.volume;
        assert_eq!((count, longest, tokens), (2, 4, 3 + 2 + 2));
        assert_eq!(documents.read().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), all);
    }
}
