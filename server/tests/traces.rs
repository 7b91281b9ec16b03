//! Traces as a collector gets them: the program sends OTLP to a receiver of ours.
#![cfg(feature = "otel")]
#![allow(clippy::unwrap_used)]

mod serving;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use mixfeed_client::{Client, StreamOptions};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use prost::Message;
use serving::Serving;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;

// opentelemetry.proto.collector.trace.v1, as far as we look at it.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes, tag = "1")]
    trace: Bytes,
    #[prost(bytes, tag = "2")]
    id: Bytes,
    #[prost(bytes, tag = "4")]
    parent: Bytes,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes, tag = "1")]
    trace: Bytes,
    #[prost(bytes, tag = "2")]
    id: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

fn value(of: &[KeyValue], key: &str) -> Value {
    of.iter().find(|a| a.key == key).and_then(|a| a.value.clone()).unwrap_or_default()
}

/// Answers every export with success and hands it on.
async fn collect(listener: TcpListener, exports: mpsc::UnboundedSender<Export>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let exports = exports.clone();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let exports = exports.clone();
            async move {
                assert!(request.uri().path().ends_with("TraceService/Export"), "{}", request.uri());
                let mut body = request.into_body().collect().await.unwrap().to_bytes();
                body.advance(5);
                let _ = exports.send(Export::decode(body).unwrap()); // the test may be over
                let ok = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    http::HeaderValue::from_static("0"),
                )]);
                let empty = Frame::data(Bytes::from_static(&[0; 5]));
                let frames = [Ok::<_, Infallible>(empty), Ok(Frame::trailers(ok))];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let answer = http::Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(answer.body(body).unwrap())
            }
        });
        tokio::spawn(
            mixfeed_server::service::http2(256, 16 << 10).serve_connection(TokioIo::new(socket), service),
        );
    }
}

/// Spans of a message, all of our service.
fn spans(export: Export) -> Vec<Span> {
    let of = |resource: ResourceSpans| {
        let service = value(&resource.resource.unwrap().attributes, "service.name");
        assert_eq!(service.text.as_deref(), Some("mixfeed"));
        resource.scopes.into_iter().flat_map(|scope| scope.spans)
    };
    export.resources.into_iter().flat_map(of).collect()
}

// It ends soon: the program's exporter drops spans beyond 2048 that wait, and batches are made far ahead of the reader.
const JOB: &str = "\n[jobs.night]\nglobal_batch = 6\nmix_block = 3\nseed = 3\nmax_steps = 3\n\
    groups = [{ group = \"photos/cat\" }, { group = \"photos/eye\" }]\n\
    image = { height = 48, width = 64, random_resized_crop = {} }\n\
    mix = { policies = [{ name = \"cutmix\" }] }\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_is_a_trace_with_its_blocks_and_stages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let (exports, mut exported) = mpsc::unbounded_channel();
    tokio::spawn(collect(listener, exports));
    let folder = tempfile::tempdir().unwrap();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-data/photos").canonicalize().unwrap();
    let text =
        format!("[sources.photos]\nkind = \"folder\"\npath = {:?}\n{JOB}", photos.display().to_string());
    let config = folder.path().join("mixfeed.toml").display().to_string();
    std::fs::write(&config, text).unwrap();
    let mut server = Serving::start_with(
        &config,
        "127.0.0.1:0",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector), ("OTEL_BSP_SCHEDULE_DELAY", "50")],
    );

    let client = Client::connect([&server.endpoint]).await.unwrap();
    let mut stream = client.stream("night", StreamOptions::default()).await.unwrap();
    for _ in 0..3 {
        stream.next_batch().await.unwrap().unwrap();
    }
    drop(stream);
    let call = "mixfeed.v1.FeedService/StreamBatches";
    let mut all = Vec::new();
    // The call ends some time after its reader left.
    while !all.iter().any(|span: &Span| span.name == call) {
        let export = tokio::time::timeout(Duration::from_secs(60), exported.recv()).await;
        all.extend(spans(export.expect("the call is a span").unwrap()));
    }
    // What is left is sent before the process ends.
    assert!(tokio::task::spawn_blocking(move || server.signal("-TERM")).await.unwrap().success());
    while let Ok(export) = exported.try_recv() {
        all.extend(spans(export));
    }
    let call = all.iter().find(|span| span.name == call).unwrap();
    let children = |of: &Span| -> Vec<&Span> {
        all.iter().filter(|s| s.parent == of.id && s.trace == of.trace).collect()
    };
    for step in 0..3 {
        let of_step = |s: &&Span| s.name == "batch" && value(&s.attributes, "step").number == Some(step);
        let batches: Vec<&Span> = all.iter().filter(of_step).collect();
        assert_eq!(batches.len(), 1, "step {step}");
        let batch = batches[0];
        assert_eq!(value(&batch.attributes, "job").text.as_deref(), Some("night"));
        assert!(
            batch.parent.is_empty()
                && batch.links.iter().any(|link| link.id == call.id && link.trace == call.trace)
        );
        let parts = children(batch);
        let names = |spans: &[&Span]| {
            let mut names: Vec<String> = spans.iter().map(|s| s.name.clone()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&parts), ["block", "block", "send", "send"]);
        for block in parts.iter().filter(|s| s.name == "block") {
            let stages = children(block);
            assert_eq!(names(&stages), ["checksum", "decode", "execute", "read"]);
            let inside = |s: &&Span| s.start >= block.start && s.end <= block.end && s.end > s.start;
            assert!(stages.iter().all(inside) && block.start >= batch.start && block.end <= batch.end);
        }
    }
}

#[test]
fn a_collector_that_cannot_be_named_is_a_wrong_flag() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_mixfeed"))
        .args(["policies"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "no address")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("cannot send traces"));
}

/// Keeps spans as they end.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(spans);
        Ok(())
    }
}

#[test]
fn the_callers_span_is_the_parent() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for header in [Some(caller), Some("00-nonsense-01"), None] {
        let headers = header.map(|h| (http::HeaderName::from_static("traceparent"), h.parse().unwrap()));
        drop(mixfeed_server::trace::call("/mixfeed.v1.FeedService/OpenJob", &headers.into_iter().collect()));
    }
    drop(mixfeed_server::trace::call("/../etc/passwd", &http::HeaderMap::new()));
    let spans = kept.0.lock().unwrap();
    assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(spans[0].span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    let none = opentelemetry::trace::SpanId::INVALID;
    assert!(spans[1..].iter().all(|span| span.parent_span_id == none));
    assert_eq!((&*spans[0].name, &*spans[3].name), ("mixfeed.v1.FeedService/OpenJob", "unknown"));
}
