//! Log lines, and traces where they are asked for.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::{Layer, Registry, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Traces on their way to a collector; sends what is left when it is dropped.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Begins to log what `filter` lets through ("info,h2=warn"), and to trace when the environment names a collector. Call it
/// once, inside of a runtime.
///
/// # Errors
/// A sentence: the filter, or the collector's address, cannot be used.
pub fn init(filter: &str, format: Format) -> Result<Traces, String> {
    let logged = EnvFilter::try_new(filter).map_err(|error| format!("--log `{filter}`: {error}"))?;
    // Spans are for collectors: without one nothing asks for them, and they cost nothing.
    let off = format!("{}=off", crate::trace::TARGET);
    let logged = logged.add_directive(off.parse().expect("a target and a level"));
    // A closed stderr must not end a server: the default would complain about it on stderr, and panic.
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => lines.with_filter(logged).boxed(),
        Format::Json => lines.json().with_filter(logged).boxed(),
    };
    let (traces, spans) = spans()?;
    let wanted = Targets::new().with_target(crate::trace::TARGET, LevelFilter::INFO);
    tracing_subscriber::registry().with(lines).with(spans.map(|spans| spans.with_filter(wanted))).init();
    Ok(traces)
}

type Spans = Option<
    Box<
        dyn Layer<tracing_subscriber::layer::Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>>
            + Send
            + Sync,
    >,
>;

#[cfg(not(feature = "otel"))]
fn spans() -> Result<(Traces, Spans), String> {
    Ok((Traces::default(), None))
}

/// The layer that sends spans by OTLP over gRPC, as the variables of the OpenTelemetry specification say.
#[cfg(feature = "otel")]
fn spans() -> Result<(Traces, Spans), String> {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};

    let names = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    if names.iter().all(|name| std::env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Ok((Traces::default(), None));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build();
    let exporter = exporter.map_err(|error| format!("cannot send traces: {error}"))?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("mixfeed");
    }
    let provider =
        SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("mixfeed"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .boxed();
    Ok((Traces { provider: Some(provider) }, Some(layer)))
}

impl Drop for Traces {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(std::time::Duration::from_secs(5))
        {
            super::complain(format_args!("warning: traces may be missing: {error}"));
        }
    }
}
