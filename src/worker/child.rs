//! The child's side of the pipe: one job in a process of its own.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, getppid, setpriority_process};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{folder::read_spec, protocol::Message};
use crate::{
    job::{Failure, FailureCode, JobId, Progress, Stage},
    pipeline, telemetry,
};

/// How polite a child is to the server on the same cores.
const NICENESS: i32 = 10;
/// How much rather the kernel kills a child than the server when memory ends.
const OOM_SCORE: &str = "500";
/// Between two signs of life.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Least time between two lines of progress inside a stage.
const PROGRESS: Duration = Duration::from_millis(100);
/// Exit code of a child that nobody listens to any more.
const ORPHANED: i32 = 3;

/// What a child is given.
#[derive(Debug)]
pub struct Assignment {
    /// The job's work folder, with its spec.
    pub work: PathBuf,
    /// An empty folder to fill.
    pub output: PathBuf,
    /// The machine.
    pub settings: pipeline::Settings,
    /// What its log lines carry.
    pub origin: Origin,
}

/// Which job the process runs, and which request that came with.
#[derive(Debug)]
pub struct Origin {
    /// The job.
    pub job: JobId,
    /// `X-Request-Id` of its submission.
    pub request_id: Option<String>,
    /// The trace that request was part of (W3C).
    pub traceparent: Option<String>,
}

/// A child could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The process that started it is gone.
    #[error("the server that started this process is gone")]
    Orphaned,
    /// The system refused what a child needs to be safe.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Ties this process's life to its parent's and makes it yield to it. Must be called first, while there is one thread:
/// threads take their niceness from the one that starts them.
///
/// # Errors
/// [`ChildError::Orphaned`] when `parent` is already gone.
pub fn settle_in(parent: u32) -> Result<(), ChildError> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| ChildError::System { what: "asking to die with the server", source: error.into() })?;
    // Only after asking: a parent that died before that sent no signal.
    if getppid() != Pid::from_raw(parent.cast_signed()) {
        return Err(ChildError::Orphaned);
    }
    // Both are courtesies that a locked-down container may refuse.
    let _ = setpriority_process(None, NICENESS);
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    Ok(())
}

/// Runs the job of `assignment` and says on standard output how it goes and how it ended.
///
/// # Errors
/// [`ChildError`] when the process could not begin; how the job ended is on the pipe, never here.
pub fn run(assignment: &Assignment) -> Result<(), ChildError> {
    let Origin { job, request_id, traceparent } = &assignment.origin;
    let span = tracing::info_span!("job", job.id = %job, request.id = request_id, traceparent);
    telemetry::follow(&span, traceparent.as_deref());
    let _entered = span.entered();
    let pipe = Arc::new(Pipe::new(io::stdout()));
    let wishes = Arc::new(Wishes::default());
    keep_company(Arc::clone(&pipe), Arc::clone(&wishes))?;
    let last_word = work(assignment, &Watcher { pipe: &pipe, wishes: &wishes });
    tracing::info!(?last_word, "the worker process ends");
    pipe.say(&last_word);
    Ok(())
}

fn work(assignment: &Assignment, watcher: &Watcher<'_>) -> Message {
    let spec = match read_spec(&assignment.work) {
        Ok(spec) => spec,
        Err(error) => {
            let failure = Failure::retry(FailureCode::Internal, format!("the job's spec could not be read: {error}"));
            return Message::Failed { failure };
        }
    };
    let context = pipeline::Context {
        work: &assignment.work,
        output: &assignment.output,
        settings: &assignment.settings,
        observer: watcher,
    };
    match pipeline::run(&spec, &context) {
        Ok(_) => Message::Done,
        Err(error) => {
            tracing::warn!(%error, "the job ended without a checkpoint");
            error.failure().map_or(Message::Stopped, |failure| Message::Failed { failure })
        }
    }
}

/// What the supervisor has asked for.
#[derive(Debug, Default)]
struct Wishes {
    /// To end at the next boundary (SIGTERM).
    stop: AtomicBool,
    /// To end once the step under way is finished (SIGUSR1).
    pause: AtomicBool,
}

/// Starts the thread that shows signs of life while a stage is silent, and hears signals.
fn keep_company(pipe: Arc<Pipe>, wishes: Arc<Wishes>) -> Result<(), ChildError> {
    let system = |what| move |source| ChildError::System { what, source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("starting the heartbeat"))?;
    // Before the job begins, so that no signal of its supervisor can find the default action in place.
    let listen = |kind| runtime.block_on(async { signal(kind) }).map_err(system("hearing signals"));
    let (terminate, pause) = (listen(SignalKind::terminate())?, listen(SignalKind::user_defined1())?);
    std::thread::Builder::new()
        .name("heartbeat".to_owned())
        .spawn(move || runtime.block_on(beat_and_listen(&pipe, &wishes, terminate, pause)))
        .map_err(system("starting the heartbeat"))?;
    Ok(())
}

async fn beat_and_listen(pipe: &Pipe, wishes: &Wishes, mut terminate: Signal, mut pause: Signal) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            _ = beats.tick() => pipe.say(&Message::Heartbeat),
            _ = terminate.recv() => wishes.stop.store(true, Ordering::Relaxed),
            _ = pause.recv() => wishes.pause.store(true, Ordering::Relaxed),
        }
    }
}

/// Standard output as a pipe of messages.
struct Pipe {
    inner: Mutex<PipeState>,
}

struct PipeState {
    output: Box<dyn Write + Send>,
    last: Option<(Stage, Instant)>,
}

impl Pipe {
    fn new(output: impl Write + Send + 'static) -> Self {
        Self { inner: Mutex::new(PipeState { output: Box::new(output), last: None }) }
    }

    /// Writes a message. A process whose pipe is broken works for nobody, and ends.
    fn say(&self, message: &Message) {
        let mut state = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = state.write(message) {
            tracing::error!(%error, "nobody listens any more");
            std::process::exit(ORPHANED);
        }
    }

    /// Writes progress, unless the stage wrote some a moment ago.
    fn progress(&self, progress: Progress) {
        let now = Instant::now();
        let mut state = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = state.last.is_some_and(|(stage, at)| stage == progress.stage && now - at < PROGRESS);
        if recent && progress.done < progress.total {
            return;
        }
        state.last = Some((progress.stage, now));
        drop(state);
        self.say(&Message::Progress { progress });
    }
}

impl PipeState {
    fn write(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.output.write_all(&line)?;
        self.output.flush()
    }
}

struct Watcher<'a> {
    pipe: &'a Pipe,
    wishes: &'a Wishes,
}

impl pipeline::Observer for Watcher<'_> {
    fn progress(&self, progress: Progress) {
        self.pipe.progress(progress);
    }

    fn step_finished(&self) {
        self.pipe.say(&Message::StepFinished);
        if self.wishes.pause.load(Ordering::Relaxed) {
            self.wishes.stop.store(true, Ordering::Relaxed);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.wishes.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn progress_inside_a_stage_is_thinned_but_its_ends_are_told() {
        let sink = Sink::default();
        let pipe = Pipe::new(sink.clone());
        for done in 0..=1000 {
            pipe.progress(Progress::new(Stage::Influence, done, 1000));
        }
        pipe.progress(Progress::new(Stage::Gradients, 0, 10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() < 900, "{}", lines.len());
        assert!(lines[0].contains(r#""done":0"#) && lines[lines.len() - 2].contains(r#""done":1000"#));
        assert!(lines[lines.len() - 1].contains("gradients"));
    }

    #[test]
    fn a_pause_waits_for_the_step_under_way() {
        use pipeline::Observer;
        let (pipe, wishes) = (Pipe::new(Sink::default()), Wishes::default());
        let watcher = Watcher { pipe: &pipe, wishes: &wishes };
        wishes.pause.store(true, Ordering::Relaxed);
        assert!(!watcher.is_cancelled());
        watcher.step_finished();
        assert!(watcher.is_cancelled());
    }

    #[test]
    fn a_process_whose_parent_is_another_is_an_orphan() {
        // No process is its own parent.
        assert!(matches!(settle_in(std::process::id()), Err(ChildError::Orphaned)));
    }
}
