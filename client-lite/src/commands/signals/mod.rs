//! The end of the program from outside.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

use tokio_util::sync::CancellationToken;

#[cfg(not(unix))]
use other::signal;
#[cfg(unix)]
use unix::signal;

/// A token that SIGINT or SIGTERM cancels; a second signal ends the process at once.
///
/// # Panics
/// Outside a tokio runtime.
pub(super) fn stop() -> CancellationToken {
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::task::spawn(async move {
        signal().await;
        cancelled.cancel();
        signal().await;
        std::process::exit(1);
    });
    stop
}
