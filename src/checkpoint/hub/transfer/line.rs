//! The line between a transfer, which waits, and its caller, which does not.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use tokio::sync::Notify;

use crate::checkpoint::{Error, ObserveDownload};

/// How often the caller is asked whether to go on while nothing happens.
const BEAT: Duration = Duration::from_millis(500);

/// How far a transfer is.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Step {
    pub(in super::super) done: u64,
    pub(in super::super) total: u64,
    pub(in super::super) file: String,
}

/// The transfer's end of the line.
#[derive(Clone, Debug)]
pub(in super::super) struct Line {
    steps: Sender<Step>,
}

impl Line {
    pub(in super::super) fn tell(&self, step: Step) {
        // Nobody listens any more after a cancel; the transfer is dropped at its next await.
        let _ = self.steps.send(step);
    }
}

/// Runs a transfer on a thread and a runtime of its own, so that callers may be anything, an async runtime included;
/// `observe` is called on the caller's thread. A cancel takes effect at once, also while the hub is silent.
pub(in super::super) fn run<T: Send>(
    observe: ObserveDownload<'_>,
    transfer: impl AsyncFnOnce(&Line) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let (steps, told) = channel();
    let cancelled = Notify::new();
    let cancel = &cancelled;
    thread::scope(|scope| {
        let work = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Error::HubUnavailable(format!("no thread for the hub: {error}")))?;
            let line = Line { steps };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = cancel.notified() => Err(Error::Cancelled),
                    result = transfer(&line) => result,
                }
            })
        });
        if !watch(&told, observe) {
            cancel.notify_one();
        }
        work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Passes steps on until the transfer ends; `false` when the observer wants it to.
fn watch(told: &Receiver<Step>, observe: ObserveDownload<'_>) -> bool {
    let mut last = Step::default();
    loop {
        match told.recv_timeout(BEAT) {
            Ok(step) => last = step,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
        }
        if !observe(last.done, last.total, &last.file) {
            return false;
        }
    }
}
