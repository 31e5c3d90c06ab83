//! How everything for one machine goes into one packet.

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::kv::{Message, Refusal};
use crate::ring::Destination;
use crate::{Instant, NodeId, Output, Packet, Part, Peer, Point, SlotId};

/// The token of a lookup that only wants the address of a machine.
pub(super) const ADDRESS: u64 = u64::MAX;

/// What is to be sent once the input is dealt with.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    parts: BTreeMap<Destination, Vec<Part>>,
}

impl Parcels {
    pub(super) fn post(&mut self, to: Destination, part: Part) {
        self.parts.entry(to).or_default().push(part);
    }
}

impl Node {
    pub(super) fn post_slot(&mut self, now: Instant, to: NodeId, slot: SlotId, message: Message) {
        self.post(now, to, Part::Slot { slot, message });
    }

    /// Sends a part to a machine; when its address is not known it is lost, and looked for.
    pub(super) fn post(&mut self, now: Instant, to: NodeId, part: Part) {
        if let Some(peer) = self.ring.contact(to) {
            let to = Destination::Node(peer.id, peer.address);
            self.parcels.post(to, part);
        } else {
            self.refused.homeless += 1;
            if self.placing.begin_search(now, self.settings.ring.stabilize) {
                self.ring.lookup(now, ADDRESS, Point::of_node(to, 0), now + self.settings.ring.silence);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        for (to, parts) in std::mem::take(&mut self.parcels.parts) {
            let mut batch = Vec::new();
            let mut bytes = 0;
            for part in parts {
                let weight = weight(&part);
                if !batch.is_empty() && bytes + weight > self.settings.packet_bytes {
                    self.send(to, std::mem::take(&mut batch));
                    bytes = 0;
                }
                bytes += weight;
                batch.push(part);
            }
            self.send(to, batch);
        }
    }

    fn send(&mut self, to: Destination, parts: Vec<Part>) {
        let receiver = match to {
            Destination::Node(node, _) => Some(node),
            Destination::Address(_) => None,
        };
        let named: BTreeSet<NodeId> = parts.iter().flat_map(names).collect();
        let others = named.into_iter().filter(|node| Some(*node) != receiver && *node != self.me);
        // In a large ring whoever is asked may never have heard of this node, and could not answer.
        let own = parts.iter().any(wants_answer).then(|| self.ring.me().clone());
        let mut peers: Vec<Peer> =
            own.into_iter().chain(others.filter_map(|node| self.ring.contact(node).cloned())).collect();
        if peers.len() > MAX_PEERS {
            peers.truncate(MAX_PEERS);
        }
        let packet = Packet { cluster: self.cluster, terms: self.terms, peers, parts };
        self.outputs.push_back(Output::Transmit { to, packet });
    }
}

/// The most machines a packet introduces.
const MAX_PEERS: usize = 64;

/// The machines that a part names and that its receiver may have to speak to.
fn names(part: &Part) -> Vec<NodeId> {
    match part {
        Part::Slot { message, .. } => match message {
            Message::Promise { report, .. } => report.config.audience().into_iter().collect(),
            Message::Nack { config, .. } | Message::AcceptConfig { config, .. } | Message::Learn { config } => {
                config.audience().into_iter().collect()
            }
            Message::Prepare { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. }
            | Message::Behind { .. }
            | Message::Full { .. }
            | Message::List { .. }
            | Message::Listed { .. }
            | Message::Succeed { .. }
            | Message::Fetch { .. }
            | Message::Held { .. }
            | Message::ConfigAccepted { .. }
            | Message::Confirm { .. }
            | Message::Confirmed { .. }
            | Message::Purge { .. } => Vec::new(),
        },
        Part::Told { reply: Err(Refusal::Redirect { leader, members, .. }), .. } => {
            leader.iter().chain(members).copied().collect()
        }
        Part::Pointer { members, .. } => members.clone(),
        Part::Handed { config, .. } => config.audience().into_iter().collect(),
        Part::Ring(_) | Part::Ask { .. } | Part::Told { .. } | Part::Understood { .. } => Vec::new(),
    }
}

/// Whether a part is answered, and may go to a machine that this node has never spoken to.
const fn wants_answer(part: &Part) -> bool {
    match part {
        Part::Ask { .. } | Part::Pointer { .. } | Part::Handed { .. } => true,
        Part::Slot { message, .. } => matches!(message, Message::Prepare { .. } | Message::AcceptConfig { .. }),
        Part::Ring(_) | Part::Told { .. } | Part::Understood { .. } => false,
    }
}

/// Roughly how many bytes a part has.
fn weight(part: &Part) -> usize {
    const SMALL: usize = 64;
    match part {
        Part::Slot { message: Message::Accept { key, register, .. }, .. } => SMALL + key.len() + register.size(),
        // A page is as large as a packet may be.
        Part::Slot { message: Message::Held { .. } | Message::Listed { .. }, .. } => 256 * 1024,
        // A value is the most that a request carries.
        Part::Ask { request, .. } => SMALL + request.key.len() + request.operation.size(),
        Part::Ring(_) => 16 * SMALL,
        Part::Understood { .. } => SMALL,
        Part::Slot { .. } | Part::Told { .. } | Part::Pointer { .. } | Part::Handed { .. } => 4 * SMALL,
    }
}
