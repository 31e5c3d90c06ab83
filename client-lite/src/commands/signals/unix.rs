//! Unix.

use tokio::signal::unix::{SignalKind, signal as listen};

/// Waits for SIGINT or SIGTERM.
pub(super) async fn signal() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be heard: they will end the program at once");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
