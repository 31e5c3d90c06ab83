//! How much memory a client may use for what is on its way. PURE.
//!
//! A window holds what was sent and not yet acknowledged, so it bounds memory and speed alike: a link carries at most its
//! window in each round trip. At a round trip of 50 ms:
//!
//! | `memory` | to visitors | from visitors, one stream | from visitors, a link | streams |
//! |---|---|---|---|---|
//! | `small` | 1 MiB, 160 Mbit/s | 128 KiB, 20 Mbit/s | 1 MiB, 160 Mbit/s | 128 |
//! | `normal` | 10 MiB, 1.6 Gbit/s | 1.25 MiB, 200 Mbit/s | 64 MiB | 1,024 |
//! | `large` | 64 MiB, 10 Gbit/s | 8 MiB, 1.3 Gbit/s | 256 MiB | 1,024 |
//!
//! At 200 ms it is a quarter of that, at 10 ms five times as much. Memory is used as far as targets and visitors are slow,
//! not in advance.

/// The choice that a configuration makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Memory {
    /// For routers with 64 MiB.
    Small,
    #[default]
    Normal,
    /// For one fast stream over a long way.
    Large,
}

/// What a choice means, in bytes unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    /// What a link may have sent and not seen acknowledged.
    pub(crate) send_window: u32,
    /// What a node may send on a link ahead of what targets take. Room for several uploads whose targets read nothing:
    /// whatever uses it up holds back the other tunnels and the node's replies.
    pub(crate) receive_window: u32,
    /// The same for one stream.
    pub(crate) stream_receive_window: u32,
    /// Streams at once, over all links and on each.
    pub(crate) streams: u32,
    /// What is read from a target at a time. Each stream whose visitor is slow holds as much.
    pub(crate) read: usize,
    /// What the system is asked to hold of datagrams; counts to the kernel, not to the program.
    pub(crate) socket: usize,
}

impl Memory {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "small" => Some(Self::Small),
            "normal" => Some(Self::Normal),
            "large" => Some(Self::Large),
            _ => None,
        }
    }

    pub(crate) fn budget(self) -> Budget {
        match self {
            Self::Small => Budget {
                send_window: MIB,
                receive_window: MIB,
                stream_receive_window: MIB / 8,
                streams: 128,
                read: 8 * 1024,
                socket: 256 * 1024,
            },
            Self::Normal => Budget {
                send_window: 10 * MIB,
                receive_window: 64 * MIB,
                stream_receive_window: 5 * MIB / 4,
                streams: 1024,
                // Fewer system calls than with 16 KiB by a third; more buys nothing (measured on loopback).
                read: READ_MAX,
                socket: 4 * 1024 * 1024,
            },
            Self::Large => Budget {
                send_window: 64 * MIB,
                receive_window: 256 * MIB,
                stream_receive_window: 8 * MIB,
                streams: 1024,
                read: READ_MAX,
                socket: 16 * 1024 * 1024,
            },
        }
    }
}

/// Largest `read` of any budget.
pub(crate) const READ_MAX: usize = 64 * 1024;

const MIB: u32 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_has_room_for_several_stalled_uploads_and_small_is_small() {
        for memory in [Memory::Small, Memory::Normal, Memory::Large] {
            let budget = memory.budget();
            assert!(budget.receive_window / budget.stream_receive_window >= 8, "{memory:?}");
            assert!(budget.read <= READ_MAX, "{memory:?}");
        }
        let small = Memory::Small.budget();
        // Three links with full windows, and every stream with a read that waits.
        let worst = 3 * (small.send_window + small.receive_window) as usize + small.streams as usize * small.read;
        assert!(worst < 8 * 1024 * 1024, "{worst}");
    }
}
