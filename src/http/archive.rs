//! A published folder as one tar, streamed: nothing is gathered in memory or on disk first.

use std::{collections::VecDeque, io, path::PathBuf};

use axum::body::Body;
use futures_util::stream::{Stream, unfold};
use tar::{Builder, EntryType, Header};
use tokio::{fs::File, io::AsyncReadExt};

use crate::artifact::Artifact;

/// Bytes of a record of a tar.
const RECORD: u64 = 512;
/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// What a tar is made of, in its order.
enum Piece {
    Bytes(Vec<u8>),
    /// A file of exactly so many bytes.
    File(PathBuf, u64),
}

/// A tar of files below a folder of their own.
pub(super) struct Archive {
    pieces: VecDeque<Piece>,
    length: u64,
}

impl Archive {
    /// Of `files`, each with where it lies, under `folder/` in the tar.
    pub(super) fn new(folder: &str, files: Vec<(PathBuf, Artifact)>) -> io::Result<Self> {
        let mut archive = Self { pieces: VecDeque::new(), length: 0 };
        for (path, artifact) in files {
            archive.push(Piece::Bytes(header(&format!("{folder}/{}", artifact.name), artifact.bytes)?));
            archive.push(Piece::File(path, artifact.bytes));
            archive.push(Piece::Bytes(vec![0; padding(artifact.bytes)]));
        }
        // Two empty records end a tar.
        archive.push(Piece::Bytes(vec![0; 2 * RECORD as usize]));
        Ok(archive)
    }

    fn push(&mut self, piece: Piece) {
        self.length += match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(_, length) => *length,
        };
        self.pieces.push_back(piece);
    }

    /// Bytes of the whole tar.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(self.stream())
    }

    fn stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> {
        let reader = Reader { pieces: self.pieces, open: None };
        unfold(reader, async |mut reader| match reader.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.pieces.clear();
                reader.open = None;
                Some((Err(error), reader))
            }
        })
    }
}

const fn padding(length: u64) -> usize {
    (length.next_multiple_of(RECORD) - length) as usize
}

/// The records before a file's content. Times and owners are left out, so that the same folder gives the same bytes.
fn header(name: &str, length: u64) -> io::Result<Vec<u8>> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(length);
    header.set_mode(0o644);
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, name, io::empty())?;
    Ok(builder.get_ref().clone())
}

struct Reader {
    pieces: VecDeque<Piece>,
    /// The file at work, and how much of it is left.
    open: Option<(File, u64)>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some((file, left)) = &mut self.open {
                if *left > 0 {
                    return read(file, left).await.map(Some);
                }
                self.open = None;
            }
            match self.pieces.pop_front() {
                None => return Ok(None),
                Some(Piece::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Piece::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Piece::File(path, length)) => self.open = Some((File::open(path).await?, length)),
            }
        }
    }
}

async fn read(file: &mut File, left: &mut u64) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK.min(usize::try_from(*left).unwrap_or(CHUNK))];
    let count = file.read(&mut chunk).await?;
    if count == 0 {
        // The length is already promised: better no tar than a wrong one.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left -= count as u64;
    chunk.truncate(count);
    Ok(chunk)
}
