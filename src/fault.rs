//! Places where a test can end the process, as a crash would, to see that nothing accepted is lost there.
//!
//! Without the feature `failpoints`, which no release has, they are nothing at all.

/// A place by the name `name`: with the feature, `FAILPOINTS=name=20%return` ends the process here one time in five.
#[cfg(feature = "failpoints")]
pub fn point(name: &str) {
    fail::fail_point!(name, |_| die());
}

/// A place where a test could end the process.
#[cfg(not(feature = "failpoints"))]
pub const fn point(_: &str) {}

/// Reads `FAILPOINTS`; what it says holds while the result lives.
#[cfg(feature = "failpoints")]
pub fn arm() -> impl Drop {
    fail::FailScenario::setup()
}

/// No destructor runs and nothing is flushed.
#[cfg(feature = "failpoints")]
fn die() {
    // It cannot fail for the process itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
