//! Spans: what a call and a batch went through, for a collector of traces. Nothing here costs anything unless the program
//! was built with `otel` and told where to send them.
//!
//! ```text
//! StreamBatches{job, rank, world_size}            as long as the stream is open; child of the caller's span
//! batch{job, rank, step}                          a trace of its own, linked to the call
//!   block{slot}  >  read, decode, execute, checksum
//!   send
//! ```

use tracing::{Span, info_span};

/// Target of every span. Logs leave it out, traces hold nothing else.
pub const TARGET: &str = "mixfeed_trace";

/// A call as it came in. The caller's span is its parent where a `traceparent` header says so.
pub fn call(path: &str, headers: &http::HeaderMap) -> Span {
    let ours = ["/mixfeed.", "/grpc."].iter().any(|prefix| path.starts_with(prefix));
    let name = if ours { path.trim_start_matches('/') } else { "unknown" };
    let span = info_span!(target: TARGET, parent: None, "call", otel.name = name, otel.kind = "server", rpc.system = "grpc");
    adopt(&span, headers);
    span
}

/// A batch of the stream that `call` opened. A trace of its own: a stream's would have no end. (Collectors get unsigned
/// numbers as text.)
pub fn batch(call: &Span, job: &str, rank: u32, step: u64) -> Span {
    let span =
        info_span!(target: TARGET, parent: None, "batch", job, rank = i64::from(rank), step = step as i64);
    span.follows_from(call);
    span
}

/// A block of a batch, from its first slot on.
pub fn block(batch: &Span, slot: u64) -> Span {
    info_span!(target: TARGET, parent: batch, "block", slot = slot as i64)
}

/// A stage of the block that this thread is making; it ends when the span is dropped.
pub fn stage(name: &'static str) -> Span {
    info_span!(target: TARGET, "stage", otel.name = name)
}

/// As [`stage`], of a given span.
pub fn part(of: &Span, name: &'static str) -> Span {
    info_span!(target: TARGET, parent: of, "stage", otel.name = name)
}

#[cfg(feature = "otel")]
fn adopt(span: &Span, headers: &http::HeaderMap) {
    use opentelemetry::{
        propagation::{Extractor, TextMapPropagator},
        trace::TraceContextExt,
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    struct Headers<'a>(&'a http::HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }

    let parent = opentelemetry_sdk::propagation::TraceContextPropagator::new().extract(&Headers(headers));
    if parent.span().span_context().is_valid() {
        // An error means that nobody collects this span.
        let _ = span.set_parent(parent);
    }
}

#[cfg(not(feature = "otel"))]
fn adopt(_: &Span, _: &http::HeaderMap) {}
