//! How the program ends: one type spawns every task and ends them all.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks, tells them to stop, waits for them, and drops those that stay. Clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    tasks: TaskTracker,
    draining: CancellationToken,
    stopping: CancellationToken,
    dropping: CancellationToken,
}

impl Shutdown {
    /// A scope with no task in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that will be waited for. It should end soon after [`Shutdown::stopping`] does; if it has not by the
    /// time given to [`Shutdown::finish`], it is dropped where it waits.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dropping = self.dropping.clone();
        // In a box, since each future around another one keeps room for it twice: before its first poll, and after.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            dropping.run_until_cancelled(task).await;
        });
    }

    /// Ends when nothing new is to be begun, because the program stops soon: what is under way still has time.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether nothing new is to be begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Asks all tasks to begin nothing new, some time before they are to stop.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Waits until there are no tasks, for at most so long. Tells whether there are none.
    pub async fn ended(&self, patience: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    /// Ends when the program is asked to stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// A token for code that takes one; it is cancelled with this scope, and cancelling it ends nothing else.
    pub fn token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// Whether the program was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Tasks that have not ended yet.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Asks all tasks to stop without waiting for them.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
        self.tasks.close();
    }

    /// Asks all tasks to stop, waits for them at most for `patience`, then drops the rest; tells how many that were.
    pub async fn finish(&self, patience: Duration) -> usize {
        self.stop();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let dropped = self.tasks.len();
        self.dropping.cancel();
        // Each task that waits for anything ends here; one that never waits would block its thread in any case.
        self.tasks.wait().await;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finish_waits_for_every_task_and_drops_one_that_stays() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        shutdown.spawn(async move { inner.stopping().await });
        assert_eq!(shutdown.finish(Duration::from_secs(5)).await, 0);

        let shutdown = Shutdown::new();
        let (kept, mut dropped) = tokio::sync::oneshot::channel::<()>();
        shutdown.spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        assert_eq!(shutdown.finish(Duration::from_millis(1)).await, 1);
        assert_eq!(shutdown.running(), 0);
        dropped.try_recv().unwrap_err();
    }
}
