//! What goes into a slot and what comes out of it.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::kv::register::{Answer, Key, OpId, Operation, Register};
use crate::kv::{Config, Digest, Entry};
use crate::{Ballot, Instant, NodeId, Version};

/// What a member tells a candidate.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub struct Report {
    /// The newest configuration it accepted.
    pub config: Config,
    /// Whether that one is known to be chosen.
    pub chosen: bool,
    /// Since when it has been a member.
    pub tenure: Option<Version>,
    /// Up to which version it wiped or purged.
    pub mark: Version,
    /// The highest place of any value it ever held.
    pub seq: u64,
    /// What it holds, in a few bytes.
    pub digest: Digest,
}

/// What nodes say to each other about a slot.
#[derive(Clone, Debug, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A candidate asks for the right to lead.
    Prepare {
        /// The right it claims.
        ballot: Ballot,
        /// The version of the newest configuration the candidate knows.
        config: Version,
        /// The right of the leader that has asked it to: whoever follows that one need not wait for its silence.
        instead_of: Option<Ballot>,
    },
    /// A member will listen to no lower ballot.
    Promise {
        /// The ballot it promised.
        ballot: Ballot,
        /// What it holds.
        report: Box<Report>,
    },
    /// A candidate asks for what a member holds, because that is not what it holds itself.
    Fetch {
        /// The right it claims, which the member has promised.
        ballot: Ballot,
        /// The last key it has got from this member; none at first.
        after: Option<Key>,
    },
    /// What a member holds, from some key on.
    Held {
        /// The right of the candidate.
        ballot: Ballot,
        /// Since when the member has been one.
        tenure: Option<Version>,
        /// The key that was asked from.
        after: Option<Key>,
        /// The next keys after it, in order.
        registers: Vec<(Key, Version, Arc<Register>)>,
        /// Whether there are others after these.
        more: bool,
    },
    /// A member will not listen.
    Nack {
        /// The ballot that was refused.
        ballot: Ballot,
        /// What the member promised.
        promised: Ballot,
        /// The newest configuration the member accepted.
        config: Config,
        /// Whether that one is known to be chosen.
        chosen: bool,
    },
    /// A leader writes a value.
    Accept {
        /// The leader's right.
        ballot: Ballot,
        /// Which key.
        key: Key,
        /// Which value of it.
        version: Version,
        /// The value.
        register: Arc<Register>,
        /// The version of the configuration it is written in, which is chosen.
        config: Version,
    },
    /// A member has the value on its disk.
    Accepted {
        /// The leader's right.
        ballot: Ballot,
        /// Which key.
        key: Key,
        /// Which value of it.
        version: Version,
    },
    /// A member did not take a value in: it lacks the configuration that the value is written in.
    Behind {
        /// The leader's right.
        ballot: Ballot,
        /// Which key.
        key: Key,
    },
    /// A member took nothing in: its disk has no room.
    Full {
        /// The leader's right.
        ballot: Ballot,
    },
    /// A leader proposes a configuration.
    AcceptConfig {
        /// The leader's right.
        ballot: Ballot,
        /// The configuration.
        config: Config,
    },
    /// A member has the configuration on its disk.
    ConfigAccepted {
        /// The leader's right.
        ballot: Ballot,
        /// The configuration's version.
        version: Version,
    },
    /// A leader asks whether it still leads.
    Confirm {
        /// The leader's right.
        ballot: Ballot,
        /// Which time it asks.
        round: u64,
    },
    /// It does, as far as this member knows.
    Confirmed {
        /// The leader's right.
        ballot: Ballot,
        /// Which question is answered.
        round: u64,
        /// The version of the newest configuration this member knows to be chosen, or none.
        known: Option<Version>,
        /// Whether this member takes no values in, because its disk has no room.
        full: bool,
        /// What this member holds, in a few bytes; none when it knows that something is lost.
        digest: Option<Digest>,
    },
    /// A leader asks which values a member holds, because they are not what they should be.
    List {
        /// The leader's right.
        ballot: Ballot,
        /// The last key that it has got from this member; none at first.
        after: Option<Key>,
    },
    /// Which values a member holds, from some key on.
    Listed {
        /// The leader's right.
        ballot: Ballot,
        /// The key that was asked from.
        after: Option<Key>,
        /// The next keys after it, in order; what is lost has the lowest version.
        versions: Vec<(Key, Version)>,
        /// Whether there are others after these.
        more: bool,
    },
    /// A leader says that every member holds a tombstone.
    Purge {
        /// The leader's right.
        ballot: Ballot,
        /// Which key.
        key: Key,
        /// Which value of it.
        version: Version,
    },
    /// A leader goes, and asks a member to claim the lead at once.
    Succeed {
        /// The right of the leader that goes.
        ballot: Ballot,
    },
    /// A configuration is chosen.
    Learn {
        /// The configuration.
        config: Config,
    },
}

/// Names a request, so that its reply can be told from others; the caller chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// Which key.
    pub key: Key,
    /// Which of the client's operations; the same when it is sent again.
    pub op: OpId,
    /// What to do.
    pub operation: Operation,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// Not done: another node leads, or none that is known.
    #[error("this node does not lead the slot; ask the leader, or any member when none is named")]
    Redirect {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
        /// The members of the slot, as far as is known.
        members: Vec<NodeId>,
        /// The version of the configuration that names them: of two answers the one with the higher version is right.
        version: Version,
    },
    /// Not done: too much is waiting already.
    #[error("the slot has too many requests waiting; send the request again in a moment")]
    Busy,
    /// Not done: the leader lost its quorum before it began.
    #[error("the slot lost its majority before the request was begun; send it again")]
    Unavailable,
    /// Perhaps done: the leader lost its quorum on the way.
    #[error(
        "the slot lost its majority while the request was under way; send the same operation id again to learn its fate"
    )]
    Unknown {
        /// The operation.
        op: OpId,
    },
    /// Not done: too many members have no room on their disks.
    #[error("the slot takes no writes because the disks of too many of its members are full; free some space on them")]
    ReadOnly,
    /// Not done: it or what would become of the key is beyond a limit of [`limits`](crate::kv::limits).
    #[error("the request, or what would become of its key, is larger than the store allows")]
    TooLarge,
    /// A late copy of an operation whose client has sent a later one.
    #[error("the request is a late copy; the same client has sent a newer one for this key")]
    Superseded,
}

/// What can happen to a slot.
#[derive(Clone, Debug, Hash)]
pub enum Input {
    /// The instant asked for has come.
    Timeout,
    /// Another node spoke.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A client asks.
    Request {
        /// Names the reply.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// The log is on the disk up to and including this position.
    Persisted {
        /// The position, counted from one.
        upto: u64,
    },
    /// The ring says who should keep the slot.
    Wanted {
        /// The nodes; none of them twice.
        nodes: Vec<NodeId>,
        /// How long they must have been wanted before the members change: no time when a member leaves in order, longer
        /// when one has joined, still longer when one is thought to be dead. Said again of the same nodes, the earlier
        /// end counts.
        hold_off: Duration,
    },
    /// Whether this node may begin to change the members of this slot; it may until it is told otherwise. A change under
    /// way goes on.
    Permit {
        /// Whether it may.
        may_change: bool,
    },
    /// Whether the node's disk has no room: then it takes no values in, but still votes.
    ReadOnly(bool),
    /// The node is about to go: if it leads, a member that holds everything is asked to lead instead.
    HandOver,
    /// An operator says that the other members are gone for good: this node is to go on without them, if it is a member
    /// and nobody leads. What only they had is lost.
    Force,
}

/// What a slot wants done.
#[derive(Clone, Debug, Hash)]
pub enum Output {
    /// Send a message.
    Transmit {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Write an entry to the log and say when it is on the disk.
    Append {
        /// Its position, counted from one, without a gap.
        position: u64,
        /// The entry.
        entry: Entry,
    },
    /// Answer a request.
    Reply {
        /// Which.
        id: RequestId,
        /// The answer, or why there is none.
        reply: Result<Answer, Refusal>,
        /// The value the answer rests on: nothing when the key was never written.
        rests_on: Option<Version>,
    },
    /// Nothing more: wake the slot at this instant if nothing else happens.
    Timeout(Instant),
}
