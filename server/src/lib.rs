//! mixfeed: serves mixed, augmented training batches over gRPC.
//!
//! ```text
//! record       slots of a step    block             rows                    frames     parts
//! source  ->   mixture        ->  assemble      ->  decode, plan, exec  ->  wire   ->  stream -> service -> client
//!  1 READ       3 CHOOSE           4 BATCH           2, 5, 6                 7 ENCODE   8 STREAM
//! ```
//! The batch sequence is a pure function of (job, step): [`job`] fixes the spec, [`mixture`] says which record stands
//! at which slot, [`plan`] draws what happens to it, [`exec`] obeys. Nothing depends on threads, ranks or restarts.

pub mod args;
pub mod assemble;
pub mod auth;
pub mod batch;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod decode;
pub mod estimate;
pub mod exec;
pub mod heap;
pub mod http;
pub mod job;
pub mod keeper;
pub mod live;
pub mod metrics;
pub mod mixture;
pub mod pack;
pub mod picture;
pub mod plan;
pub mod reload;
pub mod rng;
pub mod service;
pub mod shutdown;
pub mod size;
pub mod source;
pub mod store;
pub mod stream;
pub mod trace;
pub mod wire;

use assemble::Assembler;
use exec::device::Device;
use metrics_exporter_prometheus::PrometheusHandle;
use service::{Listener, Shared, StreamLimits};
use std::{collections::BTreeMap, io, path::Path, sync::Arc, sync::RwLock, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// Sources by name.
pub type Sources = BTreeMap<String, Arc<dyn source::Source>>;

/// Part of the memory limit that free buffers may keep.
const FREE_SHARE: usize = 8;

/// A server that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port or socket that cannot be bound.
    #[error(transparent)]
    Bind(#[from] io::Error),
    /// State that cannot be opened.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// No threads.
    #[error("cannot start CPU threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A device that cannot be used.
    #[error("`server.device`: {0}")]
    Device(#[from] exec::device::DeviceError),
    /// A mixer that cannot be used.
    #[error("`server.mixers`: {0}")]
    Mixer(#[from] exec::mixer::MixerError),
    /// An address that others can reach and that would speak plaintext.
    #[error(
        "`{0}` can be reached by other machines and would speak plaintext: give it a certificate in [server.tls], listen \
         on a loopback address or unix:PATH, or allow it by server.allow_plaintext = true (--allow-plaintext)"
    )]
    Plaintext(String),
    /// A token file that cannot be used.
    #[error(transparent)]
    Tokens(#[from] auth::TokensError),
    /// A certificate that cannot be used.
    #[error(transparent)]
    Tls(#[from] service::tls::TlsError),
    /// A job of the config that cannot be opened.
    #[error("job `{name}`: {error}")]
    Job {
        /// Its name.
        name: String,
        /// Why.
        error: job::JobError,
    },
}

/// A server at work.
#[derive(Debug)]
pub struct Running {
    /// What clients dial.
    pub endpoints: Vec<String>,
    /// Where metrics are, when they are on.
    pub http: Option<String>,
    /// What its calls share.
    pub shared: Arc<Shared>,
    /// Versions of the files that guard it.
    stamps: reload::Stamps,
    done: JoinHandle<()>,
}

impl Running {
    /// Waits until it has stopped.
    pub async fn wait(self) {
        if let Err(lost) = self.done.await {
            tracing::error!(%lost, "the server's task failed");
        }
    }
}

/// Limits of the edge as they are configured.
pub(crate) fn edge(limits: &config::Limits) -> service::Limits {
    service::Limits {
        connections: limits.connections,
        connections_per_peer: limits.connections_per_peer,
        streams: limits.streams_per_connection,
        header_bytes: u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX),
        request_memory: limits.request_memory.0,
        first_request: Duration::from_secs(limits.first_request),
        request_timeout: Duration::from_secs(limits.request_timeout),
        call_timeout: Duration::from_secs(limits.call_timeout),
        idle_timeout: Duration::from_secs(limits.idle_timeout),
        stall_timeout: Duration::from_secs(limits.stall_timeout),
        control_frames: limits.control_frames,
    }
}

impl StartError {
    /// Whether what the operator wrote is to blame.
    pub fn is_configuration(&self) -> bool {
        match self {
            StartError::Device(error) => error.is_choice(),
            StartError::Job { .. }
            | StartError::Mixer(_)
            | StartError::Plaintext(_)
            | StartError::Tokens(_)
            | StartError::Tls(_) => true,
            StartError::Bind(_) | StartError::Store(_) | StartError::Threads(_) => false,
        }
    }
}

/// What guards a server, read and checked.
#[derive(Debug)]
pub struct Guards {
    /// Who may do what; `None` allows everything to everybody.
    pub tokens: Option<auth::Tokens>,
    /// Certificate of TCP addresses; `None` speaks plaintext.
    pub tls: Option<service::tls::Loaded>,
    stamps: reload::Stamps,
}

impl Guards {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// [`StartError`] for a file that cannot be used, or for plaintext that others can reach.
    pub fn read(settings: &config::Server) -> Result<Guards, StartError> {
        if let Some(address) = settings.exposed() {
            return Err(StartError::Plaintext(address.into()));
        }
        let stamps = reload::Stamps::look(settings);
        let tokens = settings.tokens.as_deref().map(auth::Tokens::load).transpose()?;
        let files = settings.tls.as_ref().map(tls_files);
        let tls = files.as_ref().map(service::tls::Loaded::read).transpose()?;
        Ok(Guards { tokens, tls, stamps })
    }
}

fn tls_files(tls: &config::Tls) -> service::tls::Files {
    let config::Tls { cert, key, client_ca } = tls.clone();
    service::tls::Files { cert, key, client_ca }
}

/// What of the settings may change while the server runs.
fn stream_limits(settings: &config::Server) -> StreamLimits {
    StreamLimits {
        prefetch: settings.prefetch().0,
        max_prefetch: settings.max_prefetch().0,
        drain: Duration::from_secs(settings.drain_timeout),
    }
}

/// What jobs may be mixed with; `auto` leaves that to a measurement.
fn executors(wanted: Device, assembler: &Assembler) -> job::Executors {
    match (assembler.has_device(), wanted) {
        (false, _) => job::Executors::Cpu,
        (true, Device::Auto) => {
            let assembler = assembler.clone();
            job::Executors::Faster(Arc::new(move |feed| assembler.compare(feed).map_err(|e| e.to_string())))
        }
        (true, Device::Cpu | Device::Torch | Device::Cuda(_)) => job::Executors::Device,
    }
}

/// Starts a server: binds everything, opens the configured jobs, serves until `stop` turns true.
///
/// # Errors
/// [`StartError`]; nothing is served then.
pub async fn start(
    settings: &config::Server,
    sources: Sources,
    jobs: BTreeMap<String, mixfeed_proto::JobSpec>,
    metrics: Option<PrometheusHandle>,
    stop: watch::Receiver<bool>,
) -> Result<Running, StartError> {
    let Guards { tokens, tls, stamps } = Guards::read(settings)?;
    if tokens.is_none() && !settings.is_local() {
        tracing::warn!(
            "no server.tokens: whoever reaches this server may read every source and change every mixture"
        );
    }
    let store = match settings.state.as_deref() {
        None | Some("") => store::memory(),
        Some(path) => store::open(Path::new(path))?,
    };
    let (device, mixers) = devices(settings).await?;
    let assembler = Assembler::new(settings.threads, settings.readers, settings.memory.0 / FREE_SHARE)?;
    let assembler = assembler.with_device(device);
    let executors = executors(settings.device, &assembler);
    let known = job::Jobs::new(sources, settings.max_jobs, store).with_executors(executors);
    let shared = Arc::new(Shared {
        jobs: Arc::new(known.with_mixers(mixers)),
        assembler,
        memory: stream::Memory::new(settings.memory.0),
        limits: RwLock::new(stream_limits(settings)),
        fences: service::Fences::default(),
        house: service::House::new(edge(&settings.limits)),
        access: auth::Access::new(tokens),
        tls: tls.map(|loaded| Arc::new(service::tls::Tls::new(loaded))),
        draining: stop.clone(),
        live: Arc::default(),
    });
    for (name, spec) in jobs {
        shared.jobs.open(&name, Some(spec), &[]).map_err(|error| StartError::Job { name, error })?;
    }
    let mut listeners = Vec::new();
    for address in &settings.listen {
        listeners.push(Listener::bind(address).await?);
    }
    let endpoints = listeners.iter().map(|listener| listener.endpoint(shared.tls.is_some())).collect();
    let mut http = None;
    let (ended, over) = watch::channel(false);
    tokio::spawn(service::sample(shared.clone(), over.clone()));
    if let Some(metrics) = metrics.filter(|_| !settings.http.is_empty()) {
        let name =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on `{}`: {e}", settings.http));
        let listener = TcpListener::bind(&settings.http).await.map_err(name)?;
        http = Some(format!("http://{}", listener.local_addr()?));
        // Until the last stream has drained: that is when a dashboard is looked at.
        tokio::spawn(http::serve(listener, metrics, sight(&shared, settings), over));
    }
    let serving = service::serve(shared.clone(), listeners, settings.reflection, stop);
    let done = tokio::spawn(async move {
        serving.await;
        ended.send_replace(true);
    });
    Ok(Running { endpoints, http, shared, stamps, done })
}

/// The device of the settings, unless the CPU does its work, and the mixers.
async fn devices(
    settings: &config::Server,
) -> Result<(Option<exec::device::Worker<assemble::Slab>>, exec::mixer::Mixers), StartError> {
    let (wanted, threads, declared) = (settings.device, settings.threads, settings.mixers.clone());
    // A driver may take seconds, and so may a network.
    let started = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
        let device = exec::device::start(wanted, threads)?;
        let place = if device.is_some() { wanted } else { exec::device::Device::Cpu };
        let declared = declared.iter().map(|(name, mixer)| (name.as_str(), mixer.manifest.as_path()));
        Ok((device, exec::mixer::open(declared, place)?))
    });
    let lost = |lost: tokio::task::JoinError| exec::device::DeviceError::Failed(lost.to_string());
    let (device, mixers) = started.await.map_err(lost)??;
    tracing::info!(device = %wanted, used = device.is_some(), "pictures and scenes are mixed");
    Ok((device, mixers))
}

/// What pages for people look at.
fn sight(shared: &Shared, settings: &config::Server) -> http::Sight {
    let tokens = shared.access.clone();
    http::Sight {
        jobs: shared.jobs.clone(),
        live: shared.live.clone(),
        memory: shared.memory.clone(),
        assembler: shared.assembler.clone(),
        draining: shared.draining.clone(),
        pictures: settings.page_pictures,
        access: http::Access::new(move |authorization| tokens.allows_page(authorization)),
    }
}
