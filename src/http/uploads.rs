//! Uploaded texts: received, checked, hashed, and only then given their name.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use axum::body::Body;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncWriteExt, time::timeout};

use super::ApiError;
use crate::{
    artifact::{Depot, hexadecimal},
    job::{DatasetId, TextFormat},
};

/// How long the next piece of an upload may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes a second that an upload must bring on average once it has begun: fewer are no slow line but a held place.
const LEAST_RATE: u64 = 4096;
/// Bytes of one record.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

/// The folder of uploaded texts.
#[derive(Clone, Debug)]
pub struct Uploads {
    folder: PathBuf,
    depot: Option<Depot>,
}

/// A text that has arrived whole.
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Uploads {
    /// Texts in `folder`, which is made when the first one comes.
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, depot: None }
    }

    /// Texts that are also sent to where all machines find them.
    #[must_use]
    pub fn for_all_machines(self, depot: Option<Depot>) -> Self {
        Self { depot, ..self }
    }

    fn path(&self, id: &DatasetId, format: TextFormat) -> PathBuf {
        self.folder.join(format!("{id}.{}", format.as_str()))
    }

    /// Receives a text of at most `limit` bytes and keeps it under `id`.
    pub(super) async fn receive(
        &self,
        id: &DatasetId,
        format: TextFormat,
        body: Body,
        limit: u64,
    ) -> Result<Received, ApiError> {
        fs::create_dir_all(&self.folder).map_err(ApiError::Files)?;
        let partial = Partial(self.folder.join(format!("{id}.partial")));
        let received = write(&partial.0, body, limit).await?;
        let (from, to) = (partial.0.clone(), self.path(id, format));
        let placed = tokio::task::spawn_blocking(move || place(&from, &to, format)).await;
        placed.unwrap_or_else(|error| Err(ApiError::Files(io::Error::other(error))))?;
        if let Some(depot) = &self.depot {
            depot.send_text(&self.path(id, format)).await?;
        }
        Ok(received)
    }

    /// Removes a text, if it is there.
    pub(super) async fn remove(&self, id: &DatasetId, format: TextFormat) -> Result<(), ApiError> {
        if let Some(depot) = &self.depot {
            depot.remove_text(&format!("{id}.{}", format.as_str())).await?;
        }
        match fs::remove_file(self.path(id, format)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ApiError::Files(error)),
            _ => Ok(()),
        }
    }
}

/// A file that goes away unless it got another name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Usually it has got its name.
        let _ = fs::remove_file(&self.0);
    }
}

async fn write(path: &Path, mut body: Body, limit: u64) -> Result<Received, ApiError> {
    let mut file = File::create(path).await.map_err(ApiError::Files)?;
    let (mut hasher, mut bytes, began) = (Sha256::new(), 0_u64, Instant::now());
    while let Some(frame) = timeout(PATIENCE, body.frame()).await.map_err(|_| ApiError::BodyTimeout)? {
        let frame = frame.map_err(|_| ApiError::InvalidText("the text broke off".to_owned()))?;
        let Some(data) = frame.data_ref() else { continue };
        bytes += data.len() as u64;
        if bytes < began.elapsed().saturating_sub(PATIENCE).as_secs() * LEAST_RATE {
            return Err(ApiError::BodyTimeout);
        }
        if bytes > limit {
            return Err(ApiError::DatasetTooLarge(format!("the text is longer than the {limit} bytes left to you")));
        }
        hasher.update(data);
        file.write_all(data).await.map_err(ApiError::Files)?;
    }
    file.sync_all().await.map_err(ApiError::Files)?;
    Ok(Received { bytes, sha256: hexadecimal(&hasher.finalize()) })
}

fn place(from: &Path, to: &Path, format: TextFormat) -> Result<(), ApiError> {
    check(from, format)?;
    fs::rename(from, to).map_err(ApiError::Files)?;
    let folder = to.parent().unwrap_or(to);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(ApiError::Files)
}

/// Checks what a job would stumble over: an empty text, bytes that are no text, lines that are no objects.
fn check(path: &Path, format: TextFormat) -> Result<(), ApiError> {
    let mut text = BufReader::new(fs::File::open(path).map_err(ApiError::Files)?);
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let read = io::Read::take(&mut text, LONGEST_LINE).read_until(b'\n', &mut line).map_err(ApiError::Files)?;
        if read == 0 {
            break;
        }
        number += 1;
        check_line(&line, format).map_err(|what| ApiError::InvalidText(format!("line {number} {what}")))?;
    }
    if number == 0 { Err(ApiError::InvalidText("the text is empty".to_owned())) } else { Ok(()) }
}

fn check_line(line: &[u8], format: TextFormat) -> Result<(), String> {
    let whole = line.last() == Some(&b'\n') || (line.len() as u64) < LONGEST_LINE;
    if !whole {
        return Err(format!("is longer than {LONGEST_LINE} bytes"));
    }
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
    if format == TextFormat::Jsonl && !text.trim().is_empty() {
        let record: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
        record.map_err(|error| format!("is no JSON object: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_checked_by_format() {
        assert!(check_line(b"any text\n", TextFormat::Txt).is_ok());
        assert!(check_line(b"\xff\n", TextFormat::Txt).is_err());
        assert!(check_line(b"{\"text\": \"a\"}\n", TextFormat::Jsonl).is_ok());
        assert!(check_line(b"[1]\n", TextFormat::Jsonl).is_err());
        assert!(check_line(b"\n", TextFormat::Jsonl).is_ok());
    }
}
