//! What a child tells its supervisor: one JSON object a line on its standard output.
//!
//! The supervisor does not trust the child: a line that is too long or is no [`Message`] is logged and skipped.

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt},
    sync::mpsc,
};

use crate::job::{Failure, Progress};

/// Longest line that is read; a longer one is skipped whole.
const LONGEST_LINE: usize = 64 * 1024;
/// Longest name of a part that reaches the store.
const LONGEST_PART: usize = 256;

/// One line of the pipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// The process is alive, whatever its stage is doing.
    Heartbeat,
    /// How far it is.
    Progress {
        /// Stage and units.
        progress: Progress,
    },
    /// A step is finished and its checkpoint is on disk.
    StepFinished,
    /// The output folder is complete.
    Done,
    /// It was told to stop and did so at a checkpoint.
    Stopped,
    /// The job cannot be done.
    Failed {
        /// Why, and whether to try again.
        failure: Failure,
    },
}

impl Message {
    fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let mut message = serde_json::from_slice(line)?;
        if let Self::Progress { progress: Progress { part: Some(part), .. } } = &mut message
            && part.len() > LONGEST_PART
        {
            *part = part.chars().take(LONGEST_PART).collect();
        }
        Ok(message)
    }
}

/// Sends every message of `pipe` on, until the pipe ends or nobody listens any more.
pub(super) async fn read_messages(mut pipe: impl AsyncBufRead + Unpin, messages: mpsc::Sender<Message>) {
    let mut line = Vec::new();
    loop {
        match read_line(&mut pipe, &mut line).await {
            Ok(Line::End) => return,
            Ok(Line::TooLong) => tracing::warn!(line.limit = LONGEST_LINE, "the worker process wrote a line too long"),
            Ok(Line::Whole) => match Message::parse(&line) {
                Ok(message) => {
                    if messages.send(message).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the worker process wrote a line that is no message"),
            },
            Err(error) => {
                tracing::warn!(%error, "the pipe of the worker process broke");
                return;
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next newline into `line`, but keeps no more than [`LONGEST_LINE`] bytes of it.
async fn read_line(pipe: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    let mut too_long = false;
    loop {
        let available = pipe.fill_buf().await?;
        if available.is_empty() {
            return Ok(if line.is_empty() && !too_long { Line::End } else { whole_or_not(too_long) });
        }
        let newline = available.iter().position(|&byte| byte == b'\n');
        let text = &available[..newline.unwrap_or(available.len())];
        too_long |= line.len() + text.len() > LONGEST_LINE;
        if !too_long {
            line.extend_from_slice(text);
        }
        let used = text.len() + usize::from(newline.is_some());
        pipe.consume(used);
        if newline.is_some() {
            return Ok(whole_or_not(too_long));
        }
    }
}

fn whole_or_not(too_long: bool) -> Line {
    if too_long { Line::TooLong } else { Line::Whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{FailureCode, Stage};

    async fn messages_in(text: Vec<u8>) -> Vec<Message> {
        let (sender, mut receiver) = mpsc::channel(16);
        read_messages(text.as_slice(), sender).await;
        let mut messages = Vec::new();
        while let Some(message) = receiver.recv().await {
            messages.push(message);
        }
        messages
    }

    #[test]
    fn a_message_reads_back_as_itself() {
        let progress = Progress { layer: Some(3), part: Some("mlp".into()), ..Progress::new(Stage::Gradients, 1, 9) };
        for message in [
            Message::Heartbeat,
            Message::Progress { progress },
            Message::StepFinished,
            Message::Done,
            Message::Stopped,
            Message::Failed { failure: Failure::retry(FailureCode::DiskFull, "full") },
        ] {
            let line = serde_json::to_vec(&message).unwrap();
            assert!(!line.contains(&b'\n'));
            assert_eq!(Message::parse(&line).unwrap(), message);
        }
    }

    #[tokio::test]
    async fn lines_that_are_no_messages_are_skipped() {
        let mut text = b"hello\n{\"type\":\"reboot\"}\n\xff\xfe\n\n{\"type\":\"heartbeat\"}\n{\"type\":\"don".to_vec();
        assert_eq!(messages_in(text.clone()).await, [Message::Heartbeat]);
        text.extend(b"e\"}");
        assert_eq!(messages_in(text).await, [Message::Heartbeat, Message::Done]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept() {
        let mut text = vec![b'x'; 3 * LONGEST_LINE];
        text.extend(b"\n{\"type\":\"done\"}\n");
        assert_eq!(messages_in(text).await, [Message::Done]);
    }

    #[test]
    fn a_long_part_is_cut() {
        let line = format!(
            r#"{{"type":"progress","progress":{{"stage":"load","done":0,"total":1,"part":"{}"}}}}"#,
            "é".repeat(1000)
        );
        let Message::Progress { progress } = Message::parse(line.as_bytes()).unwrap() else { panic!("a progress") };
        assert_eq!(progress.part.unwrap().chars().count(), LONGEST_PART);
    }
}
