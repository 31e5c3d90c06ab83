//! What goes into a node and what comes out of it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::kv::{self, Answer, Key, OpId, Operation, Refusal, RequestId};
use crate::ring::{self, Destination};
use crate::{Instant, NodeId, Peer, Point, Record, Version};

/// Which cluster: drawn once, when its first node is made. Nodes of different clusters do not speak to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

/// One slice of the ring: the keys whose points have these leading bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId(pub u16);

/// What all nodes of a cluster must agree on; chosen when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terms {
    /// The ring is cut into two to the power of this many slots, at most [`Terms::SLOT_BITS_MAX`].
    pub slot_bits: u8,
    /// How many machines keep each slot, as far as there are that many.
    pub replicas: u8,
}

impl Terms {
    /// 4,096 slots: more than any cluster needs, and few enough for one node to keep all of them.
    pub const SLOT_BITS_MAX: u8 = 12;
    /// More replicas cost every write, and no failure of this size is independent.
    pub const REPLICAS_MAX: u8 = 7;

    /// Whether a node can keep them.
    pub const fn is_sane(self) -> bool {
        self.slot_bits <= Self::SLOT_BITS_MAX && self.replicas >= 1 && self.replicas <= Self::REPLICAS_MAX
    }

    /// How many slots there are.
    pub const fn slots(self) -> u16 {
        1 << self.slot_bits
    }

    /// The slot of a key.
    pub fn slot_of(self, key: &[u8]) -> SlotId {
        let number = Point::of_key(key).number() >> (Point::BITS - u32::from(self.slot_bits));
        SlotId(u16::try_from(number).unwrap_or(u16::MAX))
    }

    /// Where a slot begins: the machines clockwise from there keep it.
    pub const fn point_of(self, slot: SlotId) -> Point {
        Point::new((slot.0 as u64) << (Point::BITS - self.slot_bits as u32))
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self { slot_bits: 8, replicas: 3 }
    }
}

/// Everything one node says to another at one time.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub struct Packet {
    /// The cluster of the sender.
    pub cluster: ClusterId,
    /// What its cluster agreed on, once the sender knows.
    pub terms: Option<Terms>,
    /// Machines that the parts name and that the receiver may not know.
    pub peers: Vec<Peer>,
    /// What is said.
    pub parts: Vec<Part>,
}

/// One thing one node says to another.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub enum Part {
    /// About the ring.
    Ring(ring::Message),
    /// About a slot.
    Slot {
        /// Which.
        slot: SlotId,
        /// What.
        message: kv::Message,
    },
    /// A request that this node cannot answer itself.
    Ask {
        /// How fresh the answer must be.
        freshness: Freshness,
        /// What is asked.
        request: kv::Request,
    },
    /// The answer to a request.
    Told {
        /// To which operation. Its name tells the lives of a node apart: an answer to an earlier one is not for a later.
        op: OpId,
        /// The answer, or why there is none.
        reply: Result<Reply, Refusal>,
    },
    /// Where a slot is, told by its leader to the machines that should keep it and do not yet.
    Pointer {
        /// Which slot.
        slot: SlotId,
        /// The version of its configuration.
        version: Version,
        /// Its members.
        members: Vec<NodeId>,
    },
    /// A node that goes says that a slot goes on without it.
    Handed {
        /// Which slot.
        slot: SlotId,
        /// Its configuration, which is chosen.
        config: kv::Config,
    },
    /// A member of a slot has on its disk that it goes on without the one that said so.
    Understood {
        /// Which slot.
        slot: SlotId,
        /// The version of its configuration.
        version: Version,
    },
}

/// How fresh the answer to a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Freshness {
    /// It has every write that was acknowledged before it was asked.
    Linearizable,
    /// What any one replica holds: perhaps old, but to be had when a majority is out of reach (a hint read).
    Hint,
}

/// An answer, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reply {
    /// What the operation came to.
    pub answer: Answer,
    /// The version of the register it rests on; none when the key was never written.
    pub version: Option<Version>,
}

/// What a user of a node asks.
#[derive(Clone, Debug, Hash)]
pub struct Ask {
    /// Which key.
    pub key: Key,
    /// What to do.
    pub operation: Operation,
    /// How fresh the answer must be; only reads may be [`Freshness::Hint`].
    pub freshness: Freshness,
    /// How long the node may try.
    pub patience: Duration,
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Hash)]
pub enum Failure {
    /// Not done: no majority of the key's replicas could be reached in time, or no replica at all for a hint read.
    #[error("the replicas of the key could not be reached in time; nothing was done, try again")]
    Unavailable,
    /// Perhaps done: the answer did not come in time.
    #[error("the replicas of the key did not answer in time; the operation may or may not have been done")]
    Unknown,
    /// Not done: this node has too many requests under way.
    #[error("the node has too many requests under way; try again in a moment")]
    Busy,
    /// Not done: the disks of too many replicas take no writes.
    #[error("the disks of the key's replicas take no writes; free some space on them")]
    ReadOnly,
    /// Not done, and never will be as it is.
    #[error("the key, the value or the register would be larger than allowed, or a hint was asked of a write")]
    Invalid,
}

/// What can happen to a node.
#[derive(Clone, Debug, Hash)]
pub enum Input {
    /// The instant asked for has come.
    Timeout,
    /// Another node spoke; the transport knows who.
    Packet {
        /// Who.
        from: NodeId,
        /// What it said.
        packet: Packet,
    },
    /// A user asks. There is exactly one reply.
    Request {
        /// Names the reply; the user chooses it, and not twice at a time.
        id: RequestId,
        /// What is asked.
        ask: Ask,
    },
    /// The log is on the disk up to and including this position.
    Persisted {
        /// The position, counted from one.
        upto: u64,
    },
    /// The transport could not reach a machine.
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// The node is to go: its slots are to go on without it. [`Event::Left`] says when they do.
    Leave,
    /// Whether the disk takes no more.
    ReadOnly(bool),
    /// Where other nodes may be found from now on, in place of what was said before.
    Seeds(Vec<SocketAddr>),
    /// An operator says that machines which cannot be reached are gone for good: every slot that stands still for want of them
    /// ([`Node::stranded`](crate::Node::stranded)) goes on with this node alone. What only the others had is lost, and they must never come back with the
    /// disks that they had. [`Event::Forced`] names each such slot.
    Force,
}

/// What a node wants done.
#[derive(Clone, Debug, Hash)]
pub enum Output {
    /// Send a packet.
    Transmit {
        /// To whom.
        to: Destination,
        /// What.
        packet: Packet,
    },
    /// Write a record to the log, and say when it is on the disk.
    Append {
        /// Its position, counted from one since the node was made, without a gap.
        position: u64,
        /// The record.
        record: Record,
    },
    /// Answer a request.
    Reply {
        /// Which.
        id: RequestId,
        /// The answer, or why there is none.
        reply: Result<Reply, Failure>,
    },
    /// Something that an operator may want to know.
    Event(Event),
    /// Nothing more: wake the node at this instant if nothing else happens.
    Timeout(Instant),
}

/// Something that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The node is a member of the ring.
    Joined,
    /// No slot needs the node any more: it may go.
    Left,
    /// A slot goes on with this node alone, as an operator wished.
    Forced {
        /// Which slot.
        slot: SlotId,
    },
    /// A packet of another cluster, or of one with other terms, was refused.
    Foreign {
        /// Who sent it.
        from: NodeId,
    },
}
