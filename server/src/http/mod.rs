//! The plain HTTP port: metrics, liveness, and pages for people.
//!
//! ```text
//! request -> route -> metrics, health
//!                  -> site (jobs, live, samples, logs, rows of the last batch) -> page -> HTML
//! ```
//! Pages are data: they need leave, are never stored, and bring no script and nothing of other hosts.

mod answer;
mod mixed;
mod page;
mod route;
mod sample;
mod sheet;
mod shown;
mod site;
mod stall;

pub use site::{Access, Sight};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use site::Site;
use stall::Impatient;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A scraper that sends no header for so long is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// So is a reader that takes nothing of its answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// Connections at a time: scrapers and probes, few people.
const MAX_CONNECTIONS: usize = 64;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers GET /metrics, /healthz and pages over `sight` until `stop` turns true.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    sight: Sight,
    mut stop: watch::Receiver<bool>,
) {
    let site = Arc::new(Site::new(sight));
    let mut open = JoinSet::new();
    let mut upkeep = tokio::time::interval(Duration::from_secs(5));
    let mut samples = tokio::time::interval(sample::EVERY);
    samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => drop(open.spawn(connection(socket, metrics.clone(), site.clone()))),
                // Out of file descriptors, mostly: do not spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // Finished connections make room.
            Some(_) = open.join_next(), if !open.is_empty() => {}
            // Histograms keep raw samples until they are folded: nobody may be scraping.
            _ = upkeep.tick() => metrics.run_upkeep(),
            _ = samples.tick() => site.sample(),
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

async fn connection(socket: TcpStream, metrics: PrometheusHandle, site: Arc<Site>) {
    let service = service_fn(move |request| {
        let (metrics, site) = (metrics.clone(), site.clone());
        async move { Ok::<_, Infallible>(answer::answer(&request, &metrics, &site).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Impatient::new(socket, STALL_TIMEOUT)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "http connection ended");
    }
}
