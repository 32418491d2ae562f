//! Following a job of a server until it is over.

use std::{fmt::Display, time::Duration};

use super::{Bar, CANCELLED, FAILED, NO_ANSWER, SUCCEEDED};
use crate::{
    http::{
        JobView,
        client::{Client, ClientError},
    },
    job::{JobId, Progress, Status},
};

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(500);
/// Looks in a row without an answer before waiting ends: a server that restarts is waited for.
const UNANSWERED: u32 = 20;

/// What a look at a job shows.
#[derive(Clone, Debug, PartialEq)]
struct Sight {
    /// Where the job stands.
    status: Status,
    /// How far it is.
    progress: Option<Progress>,
    /// Why it failed, as code and message.
    error: Option<(String, String)>,
}

/// Why a look failed.
#[derive(Debug)]
enum Unseen<E> {
    /// It may work the next time: no connection, a server that is starting or stopping.
    Passing(E),
    /// It will not: no such job, not graspd.
    Final(E),
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The job is published.
    Succeeded,
    /// It failed; what to tell.
    Failed(String),
    /// Somebody cancelled it.
    Cancelled,
    /// The server did not tell.
    NoAnswer(String),
}

impl Ending {
    /// The exit code of `graspd wait`.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Succeeded => SUCCEEDED,
            Self::Failed(_) => FAILED,
            Self::Cancelled => CANCELLED,
            Self::NoAnswer(_) => NO_ANSWER,
        }
    }
}

/// Follows a job of a server to its end.
pub async fn follow(bar: &Bar, client: &Client, id: JobId) -> Ending {
    watch(bar, LOOK, async || match client.get(id).await {
        Ok(job) => Ok(Sight::from(job)),
        Err(error) if may_pass(&error) => Err(Unseen::Passing(error)),
        Err(error) => Err(Unseen::Final(error)),
    })
    .await
}

/// Whether the next look may do better: the server is away, starting or stopping.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem(problem) => problem.status >= 500,
        ClientError::Unexpected { status, .. } => *status >= 500,
        ClientError::InvalidUrl { .. }
        | ClientError::InvalidKey
        | ClientError::Io { .. }
        | ClientError::Damaged { .. } => false,
    }
}

impl From<JobView> for Sight {
    fn from(job: JobView) -> Self {
        let progress = job.stage.zip(job.progress).map(|(stage, progress)| Progress {
            layer: progress.layer,
            part: progress.part,
            training: progress.training,
            ..Progress::new(stage, progress.done, progress.total)
        });
        let error = job.error.map(|error| (error.code.as_str().to_owned(), error.message));
        Self { status: job.status, progress, error }
    }
}

/// Says on standard error how a job ended, unless it went well, and gives the exit code.
pub fn tell(ending: &Ending) -> u8 {
    let text = match ending {
        Ending::Succeeded => return SUCCEEDED,
        Ending::Failed(why) => format!("the job failed: {why}"),
        Ending::Cancelled => "the job was cancelled".to_owned(),
        Ending::NoAnswer(why) => why.clone(),
    };
    super::complain(&text);
    ending.exit_code()
}

/// Looks every `pause`, draws what it sees, and returns when the job is over or cannot be seen.
async fn watch<E: Display>(
    bar: &Bar,
    pause: Duration,
    mut look: impl AsyncFnMut() -> Result<Sight, Unseen<E>>,
) -> Ending {
    let mut unanswered = 0;
    let ending = loop {
        match look().await {
            Ok(sight) => {
                unanswered = 0;
                if let Some(progress) = &sight.progress {
                    bar.show(progress);
                }
                if let Some(ending) = over(sight) {
                    break ending;
                }
            }
            Err(Unseen::Final(error)) => break Ending::NoAnswer(error.to_string()),
            Err(Unseen::Passing(error)) => {
                unanswered += 1;
                if unanswered >= UNANSWERED {
                    break Ending::NoAnswer(error.to_string());
                }
            }
        }
        tokio::time::sleep(pause).await;
    };
    bar.end();
    ending
}

fn over(sight: Sight) -> Option<Ending> {
    match sight.status {
        Status::Queued | Status::Running | Status::Paused => None,
        Status::Succeeded => Some(Ending::Succeeded),
        Status::Cancelled => Some(Ending::Cancelled),
        Status::Failed => Some(Ending::Failed(
            sight.error.map_or_else(|| "failed".to_owned(), |(code, message)| format!("{code}: {message}")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Stage;

    fn sight(status: Status) -> Sight {
        Sight { status, progress: Some(Progress::new(Stage::Load, 1, 2)), error: None }
    }

    async fn ending(looks: Vec<Result<Sight, Unseen<&'static str>>>) -> Ending {
        let mut looks = looks.into_iter();
        watch(&Bar::default(), Duration::ZERO, async || looks.next().unwrap_or(Err(Unseen::Passing("no connection"))))
            .await
    }

    #[tokio::test]
    async fn a_job_is_followed_to_its_end() {
        let looks = vec![Ok(sight(Status::Queued)), Ok(sight(Status::Running)), Ok(sight(Status::Succeeded))];
        assert_eq!(ending(looks).await.exit_code(), SUCCEEDED);
        assert_eq!(ending(vec![Ok(sight(Status::Cancelled))]).await.exit_code(), CANCELLED);
        let error = Some(("model_not_found".to_owned(), "no such folder".to_owned()));
        let failed = ending(vec![Ok(Sight { error, ..sight(Status::Failed) })]).await;
        assert_eq!(failed, Ending::Failed("model_not_found: no such folder".to_owned()));
    }

    #[tokio::test]
    async fn a_server_that_restarts_is_waited_for_but_not_for_ever() {
        let looks =
            vec![Err(Unseen::Passing("refused")), Err(Unseen::Passing("refused")), Ok(sight(Status::Succeeded))];
        assert_eq!(ending(looks).await, Ending::Succeeded);
        assert_eq!(ending(Vec::new()).await.exit_code(), NO_ANSWER);
        assert_eq!(ending(vec![Err(Unseen::Final("no such job"))]).await, Ending::NoAnswer("no such job".to_owned()));
    }
}
