//! Systems that know Ctrl-C only.

/// Waits for Ctrl-C.
pub(super) async fn signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        tracing::warn!("Ctrl-C cannot be heard: it will end the program at once");
        std::future::pending::<()>().await;
    }
}
