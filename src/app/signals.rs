//! SIGINT and SIGTERM.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::INTERRUPTED;

/// Both signals that ask a process to end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on the two signals no longer end this process by themselves. Needs a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => tracing::info!(signal = "SIGINT", "asked to stop"),
            _ = self.terminate.recv() => tracing::info!(signal = "SIGTERM", "asked to stop"),
        }
    }
}

/// A flag that the first signal raises; the second ends the process at once.
pub(super) fn flag() -> io::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let flag = Arc::clone(&raised);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            signals.received().await;
            flag.store(true, Ordering::Relaxed);
            signals.received().await;
            std::process::exit(INTERRUPTED.into());
        });
    })?;
    Ok(raised)
}
