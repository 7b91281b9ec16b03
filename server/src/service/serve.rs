//! Listeners, connections, and how they end.
//!
//! A connection is admitted by the house, its frames are metered, each of its calls is bounded in bytes and time, and what
//! its guest does decides when it has to go.
//!
//! Stopping: health says NOT_SERVING, listeners close, every stream gets a GoAway at its next batch boundary; what is
//! still open after the drain time is cut.

use super::guest::{Guest, Stay};
use super::limits::{Limits, Peer, Refusal};
use super::meter::Meter;
use super::tls::Tls;
use super::{Shared, calls, routes};
use crate::trace;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::os::unix::fs::FileTypeExt;
use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::Duration, time::Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tracing::Instrument;

/// A connection that answers no ping for so long is dead.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What h2 may hold of a stream's ready bytes; above the frame size, so that it never starves.
const SEND_BUFFER: usize = 1 << 20;
/// Bytes of a request that are on their way, of a call and of a connection.
const RECEIVE_WINDOW: u32 = 1 << 20;
/// Calls that were reset before they were looked at.
const RESET_BEFORE: usize = 20;
/// Calls that this side refused or reset: beyond what a connection may open, mostly.
const RESET_BY_US: usize = 1024;
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
    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok((Socket::Tcp(socket), address.into()))
            }
            Listener::Unix(listener, _) => Ok((Socket::Unix(listener.accept().await?.0), Peer::Local)),
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
            accepted = listener.accept() => accepted,
            // Finished connections are forgotten as they end.
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            () = stopped(&mut stop) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(stay) = shared.house.admit(peer) else { continue }; // closes the socket
        match socket {
            Socket::Tcp(socket) => match shared.tls.clone() {
                Some(tls) => {
                    open.spawn(secured(tls, socket, stay, shared.clone(), routes.clone(), stop.clone()));
                }
                None => {
                    open.spawn(connection(socket, stay, shared.clone(), routes.clone(), stop.clone()));
                }
            },
            Socket::Unix(socket) => {
                open.spawn(connection(socket, stay, shared.clone(), routes.clone(), stop.clone()));
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

/// HTTP/2 as this server speaks it, with `streams` calls a connection and `header_bytes` of headers a request.
pub fn http2(streams: u32, header_bytes: u32) -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_pending_accept_reset_streams(RESET_BEFORE)
        .max_local_error_reset_streams(RESET_BY_US)
        .max_header_list_size(header_bytes)
        .max_concurrent_streams(streams);
    http2
}

/// Shakes hands, then serves; a slow handshake holds nobody else up.
async fn secured(
    tls: Arc<Tls>,
    socket: TcpStream,
    stay: Stay,
    shared: Arc<Shared>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let guest = stay.guest().clone();
    let socket = tokio::select! {
        socket = tls.accept(socket) => socket,
        why = guest.over(None) => {
            why.count();
            None
        }
        () = stopped(&mut stop) => None,
    };
    if let Some(socket) = socket {
        connection(socket, stay, shared, routes, stop).await;
    }
}

/// Serves one connection until it ends or has to go; `stay` keeps it in the count.
async fn connection<S>(
    socket: S,
    stay: Stay,
    shared: Arc<Shared>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guest = stay.guest().clone();
    let Limits { streams, header_bytes, .. } = guest.limits();
    let service = {
        let guest = guest.clone();
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (shared, routes, call) = (shared.clone(), routes.clone(), guest.call());
            let span = trace::call(request.uri().path(), request.headers());
            let answer =
                async move { Ok::<_, Infallible>(calls::answer(&shared, routes, call, request).await) };
            answer.instrument(span)
        })
    };
    let socket = TokioIo::new(Meter::new(socket, guest.clone()));
    let connection = http2(streams, header_bytes).serve_connection(socket, service);
    tokio::pin!(connection);
    // Since when the client was asked to go.
    let (mut leaving, mut stopping) = (None, false);
    let ended = loop {
        tokio::select! {
            // In this order: on a busy machine what a client said in time is heard before its time is looked at.
            biased;
            ended = connection.as_mut() => break ended,
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                // Calls end in their own time; when there is none, nobody is waited for who does not answer.
                leaving = leaving.or(Some(Instant::now()));
                connection.as_mut().graceful_shutdown();
            }
            why = guest.over(leaving) => {
                if leaving.is_none() {
                    why.count();
                }
                if why != Refusal::Idle || leaving.is_some() {
                    tracing::debug!(reason = why.name(), "connection cut");
                    return;
                }
                // Calls that are on their way are served: a new one may have crossed the GoAway.
                leaving = Some(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        note(&guest, &error);
    }
}

/// A connection ended with an error: it is the client's when it broke the rules, and nobody's when it went away.
fn note(guest: &Guest, error: &hyper::Error) {
    tracing::debug!(%error, "connection ended");
    if let Some(why) = guest.is_cut() {
        return why.count();
    }
    // Who does not answer a ping is dead.
    if !guest.has_left() && !error.is_timeout() {
        Refusal::Protocol.count();
    }
}
