//! How the program ends: one type spawns every task and ends them all.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks, tells them to stop, and waits for them. Clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Shutdown {
    /// A scope with no task in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that will be waited for. It must end soon after [`Shutdown::stopping`] does.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Ends when the program is asked to stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether the program was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// A token for code that takes one; it is cancelled with this scope, and cancelling it ends nothing else.
    pub fn token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// Tasks that have not ended yet.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Asks all tasks to stop without waiting for them.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
    }

    /// Asks all tasks to stop and waits for them, at most for `patience`; tells whether all have ended.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.stop();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finish_waits_for_every_task_and_tells_when_one_stays() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let task = shutdown.spawn(async move { inner.stopping().await });
        assert!(shutdown.finish(Duration::from_secs(5)).await);
        task.await.unwrap();

        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert!(!shutdown.finish(Duration::from_millis(1)).await);
        assert_eq!(shutdown.running(), 1);
    }
}
