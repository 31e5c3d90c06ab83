//! A picture of the ring and the slots as this node sees them, for people and for the programs that watch it.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::{Deserialize, Serialize};
use specter_dht::{Instant, NodeId, Peer};

use super::limits::NEIGHBOURS;

/// What one node knows of its cluster. Names of fields and variants are what `ring status --json` prints: they stay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RingStatus {
    /// This node, in hexadecimal.
    pub node: String,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Whether it is a member of the ring.
    pub joined: bool,
    /// Whether it is about to go.
    pub leaving: bool,
    /// Slots that the cluster has, once this node knows.
    pub slot_count: Option<u16>,
    /// Machines that are to keep each slot.
    pub replicas: Option<u8>,
    /// The other nodes that it knows, in the order of their names; at most [`NEIGHBOURS`].
    pub members: Vec<Member>,
    /// The slots that it keeps or leads: those that stand still first, then those with too few replicas.
    pub slots: Vec<SlotStatus>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Which, in hexadecimal.
    pub node: String,
    /// Where it listens to other nodes and links.
    pub address: SocketAddr,
    /// How it does.
    pub standing: Standing,
}

/// How another node does, as far as this one knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is a member of the ring, and answers.
    Alive,
    /// It has said that it is about to go.
    Leaving,
    /// It was a member within the last day, and does not answer.
    Silent,
}

/// A slot that this node keeps or leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number.
    pub slot: u16,
    /// Who leads it, if that was heard lately.
    pub leader: Option<String>,
    /// Who keeps it.
    pub members: Vec<String>,
    /// Whether fewer living nodes keep it than should.
    pub under_replicated: bool,
    /// Whether its members are being changed.
    pub changing: bool,
    /// Whether nobody leads it and too few of its members live to choose a leader: it waits for them, or for
    /// [`Handle::go_on_alone`](super::Handle::go_on_alone).
    pub stranded: bool,
}

impl RingStatus {
    pub(super) fn of(node: &specter_dht::Node, now: Instant) -> Self {
        let (ring, terms) = (node.ring(), node.terms());
        let living: BTreeSet<NodeId> = ring.living(now).map(|peer| peer.id).collect();
        let member = |peer: &Peer| Member {
            node: name(peer.id),
            address: peer.address,
            standing: match (living.contains(&peer.id), peer.leaving) {
                (true, _) => Standing::Alive,
                (false, true) => Standing::Leaving,
                (false, false) => Standing::Silent,
            },
        };
        let mut slots: Vec<SlotStatus> = node
            .pictures(now)
            .into_iter()
            .map(|picture| SlotStatus {
                slot: picture.slot.0,
                leader: picture.leader.map(name),
                members: picture.members.into_iter().map(name).collect(),
                under_replicated: picture.is_short,
                changing: picture.is_changing,
                stranded: picture.is_stranded,
            })
            .collect();
        slots.sort_by_key(|slot| (!slot.stranded, !slot.under_replicated));
        Self {
            node: name(ring.me().id),
            address: ring.me().address,
            joined: ring.is_member(),
            leaving: ring.me().leaving,
            slot_count: terms.map(specter_dht::Terms::slots),
            replicas: terms.map(|terms| terms.replicas),
            members: ring.known().take(NEIGHBOURS).map(member).collect(),
            slots,
        }
    }
}

/// As [`specter_wire::id::NodeId`] is written.
fn name(node: NodeId) -> String {
    specter_wire::id::NodeId(node.0.to_be_bytes()).to_string()
}
