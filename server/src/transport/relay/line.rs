//! One node's task: its connection, made anew as long as anybody is interested in the node.

use super::{Node, Relays, node::Status};
use quinn::{Connection, ConnectionError};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// A handshake must be done in this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits between two attempts to reach a node: each twice as long as the one before, but no longer than the shortest while
/// visitors want to go there. Some of it is left to chance.
const LONGEST: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_millis(250);

/// How often it is asked whether anybody is still interested.
const ROUND: Duration = Duration::from_secs(15);

/// How often a node is asked whether it lives, and how far away it is.
const MEASURE: Duration = Duration::from_secs(1);

/// Among so many answers at least one comes when neither machine is busy.
const MEASURES: usize = 60;

/// The task.
pub(super) struct Line {
    relays: Arc<Relays>,
    node: Arc<Node>,
}

/// Why a node cannot be reached.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it cannot be dialed")]
    Dial(#[from] quinn::ConnectError),
    #[error("no listening socket is of its family")]
    Family,
    #[error("the connection failed")]
    Connection(#[from] ConnectionError),
    #[error("it was too slow with the handshake")]
    Slow,
}

impl Line {
    pub(super) fn new(relays: Arc<Relays>, node: Arc<Node>) -> Self {
        Self { relays, node }
    }

    /// Keeps a connection until nobody is interested or the node stops.
    pub(super) async fn run(self) {
        let shutdown = self.relays.shutdown.clone();
        tokio::select! {
            () = shutdown.stopping() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut wait = Duration::ZERO;
        loop {
            let failure = match self.dial().await {
                Ok(connection) => {
                    wait = Duration::ZERO;
                    self.node.set(Status::Up(connection.clone()));
                    let Some(error) = self.watch(&connection).await else { return };
                    error.into()
                }
                Err(failure) => failure,
            };
            self.fail(&failure);
            if self.relays.forget(&self.node) {
                return;
            }
            // A node that was only started anew answers at once.
            sleep(jittered(wait.min(SHORTEST))).await;
            tokio::select! {
                () = self.node.wanted() => {}
                () = sleep(jittered(wait.saturating_sub(SHORTEST))) => {}
            }
            wait = (wait * 2).clamp(SHORTEST, LONGEST);
        }
    }

    fn fail(&self, failure: &Failure) {
        let (address, error) = (self.node.address(), failure as &dyn std::error::Error);
        tracing::debug!(%address, error, "a node that visitors are passed on to is out of reach");
        self.node.set_down();
    }

    async fn dial(&self) -> Result<Connection, Failure> {
        let address = self.node.address();
        let same_family =
            |endpoint: &&quinn::Endpoint| endpoint.local_addr().is_ok_and(|local| local.is_ipv4() == address.is_ipv4());
        let endpoint = self.relays.endpoints.iter().find(same_family).ok_or(Failure::Family)?;
        // The name is neither sent nor compared with anything; see `identity::verifier::nodes`.
        let connecting = endpoint.connect_with(self.relays.settings.clone(), address, "node.invalid")?;
        Ok(timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| Failure::Slow)??)
    }

    /// Asks the node again and again whether it lives, without end.
    async fn measure(&self, connection: &Connection) {
        loop {
            let mut lately = Duration::MAX;
            for _ in 0..MEASURES {
                sleep(MEASURE).await;
                self.node.shows_life().await;
                lately = lately.min(connection.rtt());
            }
            self.node.measured(connection, lately);
        }
    }

    /// Waits for the end of the connection; none if it is no longer wanted. Streams on it go on to their end then.
    async fn watch(&self, connection: &Connection) -> Option<ConnectionError> {
        let mut measuring = pin!(self.measure(connection));
        loop {
            tokio::select! {
                error = connection.closed() => return Some(error),
                // The only one there may be; it has nothing in it.
                Ok(_) = connection.accept_uni(), if !self.node.is_leaving() => self.node.leaves(),
                // QUIC closes it with the last stream on it.
                () = &mut measuring => {}
                () = sleep(ROUND) => if self.relays.forget(&self.node) {
                    return None;
                },
            }
        }
    }
}

/// Between a half and all of `wait`.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without chance the wait is whole.
    let part = if SystemRandom::new().fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    wait / 2 + wait * part / 510
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_wait_stays_within_its_half_and_its_whole() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(1));
            assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&wait), "{wait:?}");
        }
    }
}
