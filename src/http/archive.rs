//! A published folder as one tar, streamed: nothing is gathered in memory or on disk first.

use std::{collections::VecDeque, io};

use axum::body::{Body, Bytes};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{BoxStream, Stream, empty, unfold},
};
use tar::{Builder, EntryType, Header};
use tokio::{fs::File, io::AsyncReadExt};

use crate::artifact::{Artifact, Content};

/// Bytes of a record of a tar.
const RECORD: u64 = 512;
/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// What a tar is made of, in its order.
enum Piece {
    Bytes(Vec<u8>),
    /// A file of exactly so many bytes.
    File(Content, u64),
}

/// A tar of files below a folder of their own.
pub(super) struct Archive {
    pieces: VecDeque<Piece>,
    length: u64,
}

impl Archive {
    /// Of `files`, each with where its content is to be had, under `folder/` in the tar.
    pub(super) fn new(folder: &str, files: Vec<(Content, Artifact)>) -> io::Result<Self> {
        let mut archive = Self { pieces: VecDeque::new(), length: 0 };
        for (content, artifact) in files {
            archive.push(Piece::Bytes(header(&format!("{folder}/{}", artifact.name), artifact.bytes)?));
            archive.push(Piece::File(content, artifact.bytes));
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
    open: Option<(Open, u64)>,
}

enum Open {
    File(File),
    Object(BoxStream<'static, io::Result<Bytes>>),
}

impl Open {
    async fn of(content: Content, length: u64) -> io::Result<Self> {
        Ok(match content {
            Content::File(path) => Self::File(File::open(path).await?),
            Content::Object(_) if length == 0 => Self::Object(empty().boxed()),
            Content::Object(object) => Self::Object(object.read(0..length).await.map_err(io::Error::other)?),
        })
    }
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
                Some(Piece::File(content, length)) => self.open = Some((Open::of(content, length).await?, length)),
            }
        }
    }
}

async fn read(open: &mut Open, left: &mut u64) -> io::Result<Vec<u8>> {
    let most = CHUNK.min(usize::try_from(*left).unwrap_or(CHUNK));
    let chunk = match open {
        Open::File(file) => {
            let mut chunk = vec![0; most];
            let count = file.read(&mut chunk).await?;
            chunk.truncate(count);
            chunk
        }
        Open::Object(stream) => stream.try_next().await?.map(Vec::from).unwrap_or_default(),
    };
    *left = left.saturating_sub(chunk.len() as u64);
    // The length is already promised: better no tar than a wrong one.
    if chunk.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(chunk) }
}
