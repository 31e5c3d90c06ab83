//! What a running client tells its caller.

use std::time::Duration;

/// Something that a user may want to see.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Visitors reach a tunnel from here on. Told again after each reconnect.
    Published {
        /// Where visitors go: `https://NAME.APEX[:PORT]` or `tcp://NAME.APEX[:PORT]`.
        url: String,
        /// Where the tunnel leads, as the configuration has it.
        target: String,
    },
    /// The node does not serve a tunnel.
    Refused {
        /// Where the tunnel leads, as the configuration has it.
        target: String,
        /// A sentence about why.
        reason: String,
    },
    /// There is no link; another try follows.
    Disconnected {
        /// A sentence about why.
        reason: String,
        /// After which time.
        retry_in: Duration,
    },
}
