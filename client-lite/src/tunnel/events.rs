//! What a running client tells its caller.

use std::time::Duration;

/// Something that a user may want to see.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Visitors reach a tunnel from here on: the first link serves it. Told again if all links were lost meanwhile.
    Published {
        /// Where visitors go: `https://NAME.APEX[:PORT]` or `tcp://NAME.APEX[:PORT]`.
        url: String,
        /// Where the tunnel leads, as the configuration has it.
        target: String,
    },
    /// No node serves a tunnel.
    Refused {
        /// Where the tunnel leads, as the configuration has it.
        target: String,
        /// A sentence about why.
        reason: String,
    },
    /// How many links serve, whenever that changes.
    Links {
        /// Links that serve.
        up: usize,
        /// Links that there should be. There are fewer where there are fewer nodes.
        wanted: usize,
    },
    /// There is no link; another try follows.
    Disconnected {
        /// A sentence about why.
        reason: String,
        /// After which time.
        retry_in: Duration,
    },
}
