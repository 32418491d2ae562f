//! Spans that leave the process, in a build with the feature `otlp`: every span of graspd goes to an OpenTelemetry
//! collector (OTLP over HTTP), and traces go on from process to process by their traceparent (W3C Trace Context).

use opentelemetry::{
    Context, Key,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _},
};
pub use opentelemetry_otlp::ExporterBuildError as ExportError;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// What follows the collector's address.
const PATH: &str = "/v1/traces";
const SERVICE: &str = env!("CARGO_PKG_NAME");
/// What the SDK calls a service that has no name.
const NAMELESS: &str = "unknown_service";

/// Sends spans while it lives; what is left when it is dropped is sent then.
#[derive(Debug)]
pub(super) struct Export(SdkTracerProvider);

impl Drop for Export {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

impl Export {
    /// Begins to send spans to the collector at `endpoint`, on a thread of its own.
    pub(super) fn to(endpoint: &str) -> Result<Self, ExportError> {
        let url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(url).build()?;
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build()))
    }

    /// What makes a subscriber send its spans. Those of the exporter's own transport stay here, or there were no end.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer(SERVICE));
        layer.with_filter(filter_fn(|metadata| metadata.target().starts_with(SERVICE)))
    }
}

/// What the environment says of this service (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`), which has a name in
/// any case.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&Key::from_static_str("service.name"));
    match name.is_none_or(|name| name.as_str().starts_with(NAMELESS)) {
        true => Resource::builder().with_service_name(SERVICE).build(),
        false => found,
    }
}

/// Makes a span that has not begun yet part of the trace that a traceparent names.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It fails where nothing is exported, and then there is nothing to do.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The traceparent for what happens in `span` elsewhere: its own, or, where it is not exported, the one it has got.
pub fn traceparent(span: &Span, given: Option<String>) -> Option<String> {
    let context = span.context();
    let own = context.span().span_context().clone();
    match own.is_valid() {
        true => Some(format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8())),
        false => given,
    }
}

/// Reads a traceparent of version 00, which has been checked where it came in.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_reads_back_as_itself() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = parse(text).unwrap();
        assert_eq!(format!("{}-{}", parsed.trace_id(), parsed.span_id()), text[3..52]);
        assert!(parsed.is_sampled() && parsed.is_remote());
        assert!(parse("00-00000000000000000000000000000000-00f067aa0ba902b7-01").is_none());
        // Without an exporter a span has nothing of its own to tell.
        assert_eq!(traceparent(&Span::none(), Some(text.to_owned())).as_deref(), Some(text));
    }
}
