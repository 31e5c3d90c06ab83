//! What nodes say to each other about the ring.

use serde::{Deserialize, Serialize};

use crate::{Peer, Point};

/// A virtual node: its machine and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The machine.
    pub peer: Peer,
    /// Which of its points.
    pub point: Point,
}

/// What a machine answers to one step of a lookup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hop {
    /// The search is over: the first distinct machines clockwise from the target, the owner first.
    Found(Vec<Peer>),
    /// The search goes on.
    Nearer {
        /// These stand nearer before the target, the nearest first.
        before: Vec<Peer>,
        /// These stand next behind it, as far as this machine sees: to be asked when those before it are dead.
        beyond: Vec<Peer>,
    },
    /// This machine is no member of the ring yet.
    Outside,
}

/// What nodes say to each other about the ring. Every message says who sends it, because addresses and lives change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// A virtual node asks the one it takes for its successor, or checks a candidate; it tells of itself by that.
    Ask {
        /// Who asks, and from where on the ring.
        from: Place,
        /// The point that is asked.
        to: Point,
        /// Names the question.
        number: u64,
        /// A hash of the list that this one last answered with, or zero: the same list need not be sent again.
        known: u64,
    },
    /// A virtual node tells of its neighbours.
    Tell {
        /// Who answers, and from where on the ring.
        from: Place,
        /// Which question.
        number: u64,
        /// Its predecessor.
        predecessor: Option<Place>,
        /// Its successor list, nothing when it is the known one.
        successors: Option<Vec<Peer>>,
    },
    /// A machine tells another of one that it seems not to know and that stands near it.
    Introduce {
        /// Who tells.
        from: Peer,
        /// Of whom.
        peer: Peer,
    },
    /// A step of a lookup.
    Step {
        /// Who asks.
        from: Peer,
        /// Names the step.
        number: u64,
        /// What is looked for.
        target: Point,
    },
    /// The answer to a step.
    Stepped {
        /// Who answers.
        from: Peer,
        /// Which step.
        number: u64,
        /// What it knows.
        hop: Hop,
    },
    /// A machine makes itself known: to a seed, or to one that it lost sight of.
    Greet {
        /// Who greets.
        from: Peer,
    },
    /// The answer to a greeting.
    Greeted {
        /// Who answers.
        from: Peer,
        /// Some machines it knows, to go on from.
        peers: Vec<Peer>,
    },
    /// A machine goes.
    Farewell {
        /// Who goes.
        from: Peer,
    },
}

impl Place {
    /// Whether there can be such a virtual node at all.
    pub fn is_sound(&self) -> bool {
        self.peer.is_sound() && self.peer.stands_at(self.point)
    }
}

impl Message {
    /// Who says it.
    pub const fn from(&self) -> &Peer {
        match self {
            Self::Ask { from, .. } | Self::Tell { from, .. } => &from.peer,
            Self::Introduce { from, .. }
            | Self::Step { from, .. }
            | Self::Stepped { from, .. }
            | Self::Greet { from }
            | Self::Greeted { from, .. }
            | Self::Farewell { from } => from,
        }
    }

    /// Whether what it says of its sender can be true.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Ask { from, .. } | Self::Tell { from, .. } => from.is_sound(),
            Self::Introduce { .. }
            | Self::Step { .. }
            | Self::Stepped { .. }
            | Self::Greet { .. }
            | Self::Greeted { .. }
            | Self::Farewell { .. } => self.from().is_sound(),
        }
    }
}

/// A hash of the successor list that a virtual node tells of; never zero.
pub(crate) fn hash_of<'a>(point: Point, list: impl IntoIterator<Item = &'a Peer>) -> u64 {
    let mut hash = Mixed(point.number());
    for peer in list {
        hash.mix((peer.id.0 >> 64) as u64);
        hash.mix(peer.id.0 as u64);
        hash.mix(peer.incarnation);
        hash.mix(u64::from(peer.seats));
    }
    hash.0 | 1
}

/// A running hash, for comparing, not for secrets.
struct Mixed(u64);

impl Mixed {
    const fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 29;
    }
}
