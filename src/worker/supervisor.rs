//! One child process, from spawn to exit: hear it, keep its lease, stop it when it must stop.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::BufReader,
    process::{Child, ChildStdout, Command},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};

use super::{
    Settings, Timing,
    folder::{Folder, refused},
    lease::Lease,
    protocol::{Message, read_messages},
};
use crate::{
    job::{Failure, FailureCode, Progress},
    queue::{Beat, Claim, Outcome},
    telemetry,
};

/// Messages read ahead of the store.
const BACKLOG: usize = 64;

/// What a child is started with.
pub(super) struct Start<'a> {
    pub(super) settings: &'a Settings,
    pub(super) device: &'a str,
    pub(super) folder: &'a Folder,
    pub(super) output: &'a std::path::Path,
    pub(super) claim: &'a Claim,
}

/// How an attempt's child ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The output folder is complete.
    Finished,
    /// The attempt is over without one.
    Over(Outcome),
    /// The attempt belongs to somebody else: write nothing.
    Lost,
}

/// Why a child is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Lost,
    Silent,
    Stalled,
    Shutdown,
}

/// Runs one child to its end.
pub(super) async fn supervise(
    start: Start<'_>,
    lease: &mut Lease<'_>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Ending, Failure> {
    let timing = start.settings.timing;
    let (child, group, pipe) = spawn(&start).map_err(|error| refused(&start.settings.program, &error))?;
    let (sender, mut messages) = mpsc::channel(BACKLOG);
    let reader = tokio::spawn(read_messages(BufReader::new(pipe), sender));
    let mut supervisor = Supervisor::new(child, group, lease, timing);
    let exit = supervisor.watch(&mut messages, &mut stopping).await;
    reader.abort();
    Ok(supervisor.conclude(exit))
}

fn spawn(start: &Start<'_>) -> std::io::Result<(Child, Pid, ChildStdout)> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&start.folder.log)?;
    let mut command = Command::new(&start.settings.program);
    command.args(&start.settings.arguments);
    command.arg("--work").arg(&start.folder.work).arg("--output").arg(start.output);
    command.arg("--device").arg(start.device).arg("--parent").arg(std::process::id().to_string());
    command.arg("--job").arg(start.claim.id.to_string());
    let origin = &start.claim.origin;
    let traceparent = telemetry::traceparent(&tracing::Span::current(), origin.traceparent.clone());
    for (flag, value) in [("--request-id", &origin.request_id), ("--traceparent", &traceparent)] {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    for (name, value) in &start.settings.environment.0 {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // A group of its own, so that a Ctrl-C at the server's terminal does not reach it and a kill reaches all of it.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    match (group, child.stdout.take()) {
        (Some(group), Some(pipe)) => Ok((child, group, pipe)),
        _ => Err(std::io::Error::other("the process was gone before it began")),
    }
}

struct Supervisor<'a, 'l> {
    child: Child,
    group: Pid,
    lease: &'a mut Lease<'l>,
    timing: Timing,
    /// Why it was told to stop, if it was.
    stop: Option<Stop>,
    /// Whether it was told to stop after the step under way. That may take as long as it likes, so it is no [`Stop`].
    pausing: bool,
    /// When it is killed, or, once killed, given up.
    kill_at: Option<Instant>,
    killed: bool,
    /// Its last word: done, stopped or failed.
    last_word: Option<Message>,
    progress: Option<Progress>,
    /// When the stage at work began.
    stage_began: Instant,
    /// When progress last went to the store.
    written: Instant,
    /// When it last said anything.
    heard: Instant,
    /// Whether it ever did; before that it may not be ready for signals.
    has_spoken: bool,
    /// When its progress last changed.
    moved: Instant,
}

impl<'a, 'l> Supervisor<'a, 'l> {
    fn new(child: Child, group: Pid, lease: &'a mut Lease<'l>, timing: Timing) -> Self {
        let now = Instant::now();
        Self {
            child,
            group,
            lease,
            timing,
            stop: None,
            pausing: false,
            kill_at: None,
            killed: false,
            last_word: None,
            progress: None,
            stage_began: now,
            written: now,
            heard: now,
            moved: now,
            has_spoken: false,
        }
    }

    /// Watches until the child is gone; `None` when it outlived even SIGKILL.
    async fn watch(
        &mut self,
        messages: &mut mpsc::Receiver<Message>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Option<ExitStatus> {
        let mut ticks = interval(self.timing.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        let exit = loop {
            let kill_at = self.kill_at;
            tokio::select! {
                message = messages.recv(), if open => match message {
                    Some(message) => self.hear(message).await,
                    None => open = false,
                },
                exit = self.child.wait() => break exit.ok(),
                _ = ticks.tick() => self.tick().await,
                () = told(stopping), if self.stop.is_none() => self.stop(Stop::Shutdown),
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    if self.killed {
                        tracing::error!("the worker process outlived SIGKILL and is left behind");
                        break None;
                    }
                    self.kill();
                }
            }
        };
        self.hear_the_rest(messages).await;
        self.measure_stage();
        exit
    }

    /// Hears what the pipe still holds after the child's exit.
    async fn hear_the_rest(&mut self, messages: &mut mpsc::Receiver<Message>) {
        let deadline = Instant::now() + self.timing.kill;
        loop {
            match timeout_at(deadline, messages.recv()).await {
                Ok(Some(message)) => self.hear(message).await,
                Ok(None) => return,
                // Something the child started holds the pipe open.
                Err(_) => return self.signal(Signal::KILL),
            }
        }
    }

    async fn hear(&mut self, message: Message) {
        self.heard = Instant::now();
        self.has_spoken = true;
        match message {
            Message::Heartbeat => {}
            Message::Progress { progress } => self.note(progress).await,
            Message::StepFinished => {
                self.moved = self.heard;
                if self.stop != Some(Stop::Lost) {
                    let beat = self.lease.step_finished().await;
                    self.obey(beat);
                }
            }
            Message::Done | Message::Stopped | Message::Failed { .. } => {
                self.last_word.get_or_insert(message);
                // It has nothing more to do; one that does not leave is shown the door.
                self.kill_at.get_or_insert(self.heard + self.timing.kill);
            }
        }
    }

    async fn note(&mut self, progress: Progress) {
        let new_stage = self.progress.as_ref().is_none_or(|last| last.stage != progress.stage);
        if !self.progress.as_ref().is_some_and(|last| last.is_at(&progress)) {
            self.moved = self.heard;
        }
        if new_stage {
            self.measure_stage();
        }
        self.progress = Some(progress);
        // The end of a stage is told, so that its events do not stop short of it.
        let told = new_stage || self.progress.as_ref().is_some_and(|progress| progress.done >= progress.total);
        if told || self.written.elapsed() >= self.timing.progress {
            self.beat().await;
        }
    }

    /// Records how long the stage took that ends here.
    fn measure_stage(&mut self) {
        let seconds = self.stage_began.elapsed().as_secs_f64();
        self.stage_began = Instant::now();
        if let Some(ended) = &self.progress {
            metrics::histogram!(super::STAGE_SECONDS, "stage" => ended.stage.as_str()).record(seconds);
        }
    }

    async fn tick(&mut self) {
        self.beat().await;
        if self.stop.is_some() || self.last_word.is_some() {
            return;
        }
        if self.heard.elapsed() > self.timing.silence {
            self.stop(Stop::Silent);
        } else if self.moved.elapsed() > self.timing.stall {
            self.stop(Stop::Stalled);
        }
    }

    async fn beat(&mut self) {
        if self.stop == Some(Stop::Lost) {
            return;
        }
        self.written = Instant::now();
        let beat = self.lease.beat(self.progress.as_ref()).await;
        self.obey(beat);
    }

    fn obey(&mut self, beat: Beat) {
        match beat {
            Beat::Owned => {}
            Beat::CancelRequested => self.stop(Stop::Cancelled),
            Beat::PauseRequested => self.pause(),
            Beat::Lost => self.stop(Stop::Lost),
        }
    }

    /// Tells the child to stop, and remembers the first reason; only a lost lease overrules an earlier one.
    fn stop(&mut self, reason: Stop) {
        if self.stop.is_some() && (reason != Stop::Lost || self.stop == Some(Stop::Lost)) {
            return;
        }
        tracing::info!(?reason, "stopping the worker process");
        let patience = if reason == Stop::Shutdown { self.timing.drain } else { self.timing.kill };
        let kill_at = Instant::now() + patience;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        self.stop = Some(reason);
        self.signal(Signal::TERM);
    }

    fn pause(&mut self) {
        if !self.pausing && self.stop.is_none() && self.has_spoken {
            tracing::info!("asking the worker process to stop at its next finished step");
            self.pausing = true;
            self.signal(Signal::USR1);
        }
    }

    fn kill(&mut self) {
        tracing::warn!("killing the worker process");
        self.signal(Signal::KILL);
        self.killed = true;
        self.kill_at = Some(Instant::now() + self.timing.kill);
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.group, signal) {
            // Usually it has just left by itself.
            tracing::debug!(%error, ?signal, "the worker process could not be signalled");
        }
    }

    fn conclude(self, exit: Option<ExitStatus>) -> Ending {
        match (self.stop, self.last_word) {
            (Some(Stop::Lost), _) => Ending::Lost,
            (Some(Stop::Cancelled), _) => Ending::Over(Outcome::Cancelled),
            (_, Some(Message::Done)) => Ending::Finished,
            (_, Some(Message::Failed { failure })) => Ending::Over(Outcome::Failed(failure)),
            (None, Some(Message::Stopped)) if self.pausing => Ending::Over(Outcome::Paused),
            // Told to stop by the server, or by whoever else may signal it, such as a service manager.
            (Some(Stop::Shutdown), _) | (None, Some(Message::Stopped)) => Ending::Over(Outcome::Released),
            (Some(Stop::Silent), _) => {
                Ending::Over(stalled(format!("the worker process said nothing for {:?}", self.timing.silence)))
            }
            (Some(Stop::Stalled), _) => Ending::Over(stalled(format!(
                "stage {} made no progress for {:?}",
                self.progress.map_or_else(|| "download".to_owned(), |progress| progress.stage.to_string()),
                self.timing.stall
            ))),
            (None, _) => Ending::Over(crashed(exit)),
        }
    }
}

/// Waits until the server stops.
async fn told(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn stalled(message: String) -> Outcome {
    Outcome::Crashed(Failure::retry(FailureCode::Stalled, message))
}

fn crashed(exit: Option<ExitStatus>) -> Outcome {
    let how = match exit.map(|exit| (exit.signal(), exit.code())) {
        Some((Some(9), _)) => "was killed by signal 9, which is how a system short of memory ends a process".to_owned(),
        Some((Some(signal), _)) => format!("was killed by signal {signal}"),
        Some((None, Some(code))) => format!("exited with code {code} without saying why"),
        Some((None, None)) | None => "is gone".to_owned(),
    };
    let message = format!("the worker process {how}; its log is in the server's data folder under logs, by job id");
    Outcome::Crashed(Failure::retry(FailureCode::WorkerCrashed, message))
}
