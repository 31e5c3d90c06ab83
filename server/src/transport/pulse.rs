//! Proof of life: what has come on a connection. Every datagram is acknowledged by the other end's transport at once,
//! however slow what is behind it, so an end from which nothing at all comes while something is asked of it may be dead.

use quinn::Connection;
use std::time::Duration;

/// How much had come on a connection at one time: if it is still the same later, nothing came between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse(u64);

/// A living end shows life in this time, or in four times the way there and back if that is longer.
const PATIENCE: Duration = Duration::from_millis(150);

impl Pulse {
    /// The pulse of the other end of `connection`.
    pub fn of(connection: &Connection) -> Self {
        Self(connection.stats().udp_rx.datagrams)
    }
}

/// How long the other end of `connection` may show no life after something was asked of it.
pub fn patience(connection: &Connection) -> Duration {
    PATIENCE.max(connection.rtt() * 4)
}
