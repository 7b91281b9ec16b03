//! Signals. The first one asks to stop, the second one stops at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

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
        std::process::exit(130);
    });
    Ok(stopped)
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
