//! A build without the feature `otlp`: spans are in the log lines only, and a traceparent is handed on as it came.

use std::convert::Infallible;

use tracing::Span;
use tracing_subscriber::layer::Identity;

/// Sends nothing.
#[derive(Debug)]
pub(super) struct Export;

/// Nothing can go wrong.
pub type ExportError = Infallible;

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "it looks like the Export of a build with the feature"
)]
impl Export {
    pub(super) const fn to(_: &str) -> Result<Self, ExportError> {
        Ok(Self)
    }

    pub(super) fn layer(&self) -> Identity {
        Identity::new()
    }
}

/// Nothing: the span's own fields name its trace.
pub const fn follow(_: &Span, _: Option<&str>) {}

/// The traceparent that came.
pub const fn traceparent(_: &Span, given: Option<String>) -> Option<String> {
    given
}
