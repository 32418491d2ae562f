//! Logs on standard error, the registry of metrics, and, with the feature `otlp`, spans for a collector.

#[cfg(not(feature = "otlp"))]
#[path = "no_spans.rs"]
mod spans;
#[cfg(feature = "otlp")]
mod spans;

use std::{fmt, io, str::FromStr};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use spans::Export;
pub use spans::{ExportError, follow, traceparent};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::format::FmtSpan, util::TryInitError};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for machines.
    Json,
}

impl LogFormat {
    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json"),
        }
    }
}

/// What to log, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or directives such as `info,graspd::worker=debug`.
    pub filter: String,
    /// Address of the OpenTelemetry collector that spans are sent to; only in a build with the feature `otlp`.
    pub otlp_endpoint: Option<String>,
}

/// What receives the logs. Spans that wait to be sent are sent when it is dropped.
#[must_use = "spans are exported while it lives"]
#[derive(Debug)]
pub struct Telemetry {
    _export: Option<Export>,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter: {0}")]
    Filter(#[from] ParseError),
    /// Something else already receives the logs.
    #[error("log: {0}")]
    Log(#[from] TryInitError),
    /// The collector's address cannot be used.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT, --otlp-endpoint: {0}")]
    Export(#[from] ExportError),
    /// Something else already receives the metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] BuildError),
}

/// Sends this process's logs to standard error, and its spans to the collector, where there is one.
///
/// # Errors
/// [`TelemetryError`] for a filter that cannot be read, and when called twice.
pub fn install_log(settings: &Settings) -> Result<Telemetry, TelemetryError> {
    use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};
    let export = settings.otlp_endpoint.as_deref().map(Export::to).transpose()?;
    let filter = EnvFilter::try_new(&settings.filter)?;
    let registry = tracing_subscriber::registry().with(filter).with(export.as_ref().map(Export::layer));
    let lines = fmt::layer().with_writer(io::stderr).with_span_events(FmtSpan::NONE);
    match settings.format {
        LogFormat::Text => registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()?,
    }
    Ok(Telemetry { _export: export })
}

/// Collects this process's metrics; the handle renders them. `buckets` are the upper bounds of histograms by name.
///
/// # Errors
/// [`TelemetryError::Metrics`] when called twice, or for a histogram without buckets.
pub fn install_metrics(buckets: &[(&str, &[f64])]) -> Result<PrometheusHandle, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in buckets {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    }
    let handle = builder.install_recorder()?;
    metrics::describe_gauge!("graspd_slots_busy", "Slots that run a job");
    metrics::describe_counter!("graspd_attempts_total", "Attempts that ended, by outcome");
    metrics::describe_histogram!("graspd_attempt_seconds", "How long attempts took, by outcome, in seconds");
    metrics::describe_histogram!("graspd_stage_seconds", "How long stages of jobs took, by stage, in seconds");
    metrics::describe_counter!("graspd_published_bytes_total", "Bytes of the files that jobs have published");
    metrics::describe_gauge!("graspd_jobs", "Jobs in each state; queued is the depth of the queue");
    metrics::describe_gauge!("graspd_store_up", "Whether the store of jobs answers");
    Ok(handle)
}
