//! Listeners, connections, and how they end.
//!
//! Stopping: health says NOT_SERVING, listeners close, every stream gets a GoAway at its next batch boundary; what is
//! still open after the drain time is cut.

use super::tls::Tls;
use super::{Shared, gate, routes};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::os::unix::fs::FileTypeExt;
use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

/// A connection that answers no ping for so long is dead.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What h2 may hold of a stream's ready bytes; above the frame size, so that it never starves.
const SEND_BUFFER: usize = 1 << 20;
/// Streams of one connection.
const MAX_STREAMS: u32 = 256;
/// Connections of one listener.
const MAX_CONNECTIONS: usize = 4096;
/// Pause after a failed accept (out of file descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file is removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds "HOST:PORT" or "unix:PATH". A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub async fn bind(address: &str) -> io::Result<Listener> {
        let name = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on `{address}`: {e}"));
        let Some(path) = address.strip_prefix("unix:") else {
            return TcpListener::bind(address).await.map(Listener::Tcp).map_err(name);
        };
        let path = PathBuf::from(path);
        if is_dead_socket(&path).await {
            std::fs::remove_file(&path).map_err(name)?;
        }
        UnixListener::bind(&path).map(|l| Listener::Unix(l, path)).map_err(name)
    }

    /// The address that a client dials; `tls` when TCP speaks TLS.
    pub fn endpoint(&self, tls: bool) -> String {
        let scheme = if tls { "https" } else { "http" };
        match self {
            Listener::Tcp(l) => l.local_addr().map_or_else(|e| e.to_string(), |a| format!("{scheme}://{a}")),
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// Whether `path` is a socket that nobody listens on: only such a file may be replaced.
async fn is_dead_socket(path: &std::path::Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    socket && UnixStream::connect(path).await.err().is_some_and(refused)
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(Socket::Tcp(socket))
            }
            Listener::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path); // gone already is fine
        }
    }
}

/// Serves until `stop` turns true, then drains for as long as the limits say.
pub async fn serve(
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    reflection: bool,
    mut stop: watch::Receiver<bool>,
) {
    let (routes, reporter) = routes(&shared, reflection);
    for service in ["", "mixfeed.v1.FeedService"] {
        reporter.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    }
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, shared.clone(), routes.clone(), stop.clone()));
    }
    stopped(&mut stop).await;
    for service in ["", "mixfeed.v1.FeedService"] {
        reporter.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
    }
    let drain = shared.limits().drain;
    let all = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all).await.is_err() {
        tracing::warn!(?drain, "connections were cut: they did not end within the drain time");
    }
}

/// Waits for the stop; a sender that is gone stops as well.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Accepts until the server stops, then waits for its connections.
async fn accept(listener: Listener, shared: Arc<Shared>, routes: Routes, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // Further clients wait in the system's queue.
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => accepted,
            // Finished connections are forgotten as they end.
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok(Socket::Tcp(socket)) => match shared.tls.clone() {
                Some(tls) => {
                    open.spawn(secured(tls, socket, shared.clone(), routes.clone(), stop.clone()));
                }
                None => {
                    open.spawn(connection(socket, shared.clone(), routes.clone(), stop.clone()));
                }
            },
            Ok(Socket::Unix(socket)) => {
                open.spawn(connection(socket, shared.clone(), routes.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// HTTP/2 as this server speaks it.
pub fn http2() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS);
    http2
}

/// Shakes hands, then serves; a slow handshake holds nobody else up.
async fn secured(
    tls: Arc<Tls>,
    socket: TcpStream,
    shared: Arc<Shared>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let socket = tokio::select! {
        socket = tls.accept(socket) => socket,
        () = stopped(&mut stop) => None,
    };
    if let Some(socket) = socket {
        connection(socket, shared, routes, stop).await;
    }
}

async fn connection<S>(socket: S, shared: Arc<Shared>, routes: Routes, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (shared, routes) = (shared.clone(), routes.clone());
        async move { Ok::<_, Infallible>(gate::answer(&shared, routes, request).await) }
    });
    let connection = http2().serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
