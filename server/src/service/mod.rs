//! The gRPC edge: thin. Paths that answer with batches go to [`streams`], every other one to the generated servers.

mod bodies;
mod calls;
mod feed;
mod fence;
mod gate;
mod guest;
mod limits;
mod meter;
mod mixture;
mod sample;
mod serve;
mod stats;
pub mod status;
mod streams;
pub mod tls;
mod watching;

pub use fence::Fences;
pub use limits::{House, Limits};
pub use sample::sample;
pub use serve::{Listener, http2, serve};

use crate::assemble::Assembler;
use crate::auth::Access;
use crate::job::Jobs;
use crate::live::Live;
use crate::stream::Memory;
use mixfeed_proto::{self as v1, feed_service_server::FeedServiceServer, mixture_service_server};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tonic::service::Routes;

/// Largest request of a control call: a job spec with its policies.
const MAX_REQUEST: usize = 1 << 20;

/// What may change while the server runs.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Bytes made ahead when the client does not say.
    pub prefetch: usize,
    /// Most bytes made ahead.
    pub max_prefetch: usize,
    /// Time that streams get to end when the server stops.
    pub drain: Duration,
}

/// What every call needs.
#[derive(Debug)]
pub struct Shared {
    /// Sources and open jobs.
    pub jobs: Arc<Jobs>,
    /// Makes blocks.
    pub assembler: Assembler,
    /// Memory of streams.
    pub memory: Memory,
    /// Limits of streams.
    pub limits: RwLock<StreamLimits>,
    /// Connections and what they may hold.
    pub house: House,
    /// Who reads where.
    pub fences: Fences,
    /// Who may do what.
    pub access: Access,
    /// Certificate of the TCP listeners; `None` speaks plaintext.
    pub tls: Option<Arc<tls::Tls>>,
    /// Turns true when the server is stopping.
    pub draining: watch::Receiver<bool>,
    /// Who reads, and what went wrong.
    pub live: Arc<Live>,
}

impl Shared {
    /// The limits in force.
    pub fn limits(&self) -> StreamLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other limits in force, for streams that are opened from now on.
    pub fn set_limits(&self, limits: StreamLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

/// The generated servers with health and, if asked, reflection. The reporter turns health off when the server drains.
pub fn routes(shared: &Arc<Shared>, reflection: bool) -> (Routes, tonic_health::server::HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let feed = FeedServiceServer::new(feed::Feed(shared.clone())).max_decoding_message_size(MAX_REQUEST);
    let mixture = mixture_service_server::MixtureServiceServer::new(mixture::Mixture(shared.clone()))
        .max_decoding_message_size(MAX_REQUEST);
    let mut routes = Routes::builder();
    routes.add_service(feed).add_service(mixture).add_service(health);
    if reflection {
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let built = "the descriptor sets are compiled in";
        routes.add_service(describe().build_v1().expect(built));
        routes.add_service(describe().build_v1alpha().expect(built));
    }
    (routes.routes().prepare(), reporter)
}

/// A code as metrics name it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code as C;
    match code {
        C::Ok => "OK",
        C::Cancelled => "CANCELLED",
        C::Unknown => "UNKNOWN",
        C::InvalidArgument => "INVALID_ARGUMENT",
        C::DeadlineExceeded => "DEADLINE_EXCEEDED",
        C::NotFound => "NOT_FOUND",
        C::AlreadyExists => "ALREADY_EXISTS",
        C::PermissionDenied => "PERMISSION_DENIED",
        C::ResourceExhausted => "RESOURCE_EXHAUSTED",
        C::FailedPrecondition => "FAILED_PRECONDITION",
        C::Aborted => "ABORTED",
        C::OutOfRange => "OUT_OF_RANGE",
        C::Unimplemented => "UNIMPLEMENTED",
        C::Internal => "INTERNAL",
        C::Unavailable => "UNAVAILABLE",
        C::DataLoss => "DATA_LOSS",
        C::Unauthenticated => "UNAUTHENTICATED",
    }
}
