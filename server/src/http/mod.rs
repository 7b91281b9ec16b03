//! The plain HTTP port: metrics and liveness.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{convert::Infallible, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A scraper that sends no header for so long is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time: scrapers and probes, not users.
const MAX_CONNECTIONS: usize = 64;

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers GET /metrics and /healthz until `stop` turns true.
pub async fn serve(listener: TcpListener, metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    let mut upkeep = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => drop(open.spawn(connection(socket, metrics.clone()))),
                // Out of file descriptors, mostly: do not spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // Finished connections make room.
            Some(_) = open.join_next(), if !open.is_empty() => {}
            // Histograms keep raw samples until they are folded: nobody may be scraping.
            _ = upkeep.tick() => metrics.run_upkeep(),
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
        }
    }
}

async fn connection(socket: TcpStream, metrics: PrometheusHandle) {
    let service = service_fn(move |request| {
        let response = answer(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "http connection ended");
    }
}

fn answer(request: &Request<Incoming>, metrics: &PrometheusHandle) -> Response<Full<Bytes>> {
    let text = |status, kind, body: String| {
        let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
        response.body(Full::from(body)).expect("constant headers")
    };
    const PLAIN: &str = "text/plain; charset=utf-8";
    match request.uri().path() {
        "/metrics" => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", crate::metrics::render(metrics))
        }
        "/healthz" => text(StatusCode::OK, PLAIN, "ok\n".into()),
        "/" => text(StatusCode::OK, PLAIN, "mixfeed: see /metrics and /healthz\n".into()),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "not found\n".into()),
    }
}
