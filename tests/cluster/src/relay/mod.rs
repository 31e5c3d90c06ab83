//! A wire that is worse than loopback: the kernel here cannot delay or lose packets, so relays between the programs do.
//!
//! [`UdpRelay`] carries datagrams, [`TcpRelay`] connections. What happens to the n-th packet of a direction is decided by
//! the seed and n alone ([`mod@line`]), so a run can be repeated.

pub mod line;
mod queue;
mod tcp;
mod udp;

pub use line::Conditions;
pub use tcp::TcpRelay;
pub use udp::UdpRelay;

/// One direction through a relay, or both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From those who connect to the relay.
    Up,
    /// To those who connect to the relay.
    Down,
    /// Both.
    Both,
}

impl Direction {
    fn has_up(self) -> bool {
        matches!(self, Self::Up | Self::Both)
    }

    fn has_down(self) -> bool {
        matches!(self, Self::Down | Self::Both)
    }
}
