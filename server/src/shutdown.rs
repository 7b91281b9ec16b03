//! Signals. The first one asks to stop, the second one stops at once. And the end itself.
#![allow(unsafe_code)]

use std::io::Write;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, mpsc::error::TrySendError, watch};

/// Turns true at the first SIGTERM or SIGINT; a second one ends the process with status 130.
///
/// # Errors
/// When the system gives no signal handler.
pub fn watch_signals() -> std::io::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        either(&mut term, &mut int).await;
        tracing::info!("stopping; a second signal stops at once");
        stop.send_replace(true);
        either(&mut term, &mut int).await;
        leave(130);
    });
    Ok(stopped)
}

/// Ends the process at once. What libraries have registered for its end does not run: libtorch would take away what its
/// threads still work with, and a stop waits for no block.
pub fn leave(status: u8) -> ! {
    let _ = std::io::stdout().flush(); // nowhere left to complain to
    // SAFETY: the process is gone; what it holds is the system's.
    unsafe { libc::_exit(status.into()) }
}

/// SIGHUP: the operator wants the config to be read again. From now on it no longer ends the process.
///
/// # Errors
/// When the system gives no signal handler.
pub fn watch_hangups() -> std::io::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (send, hangups) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match send.try_send(()) {
                Ok(()) | Err(TrySendError::Full(())) => {} // one that waits will read what is there by then
                Err(TrySendError::Closed(())) => return,
            }
        }
    });
    Ok(hangups)
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
