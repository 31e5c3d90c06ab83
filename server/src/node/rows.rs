//! The node's state as rows of the snapshot, and back.
//!
//! A slot's row has what is not a register; a register's row has its version and its value. What belongs to no slot has the
//! number [`CLUSTER`]: the row of that slot is what the cluster agreed on, and its registers are the peer book.

use std::sync::Arc;

use specter_dht::{
    NodeId, Peer, SlotId, State, Terms, Version,
    codec::{self, CodecError},
    kv::{Durable, Key, Meta, Register, Rules},
};
use specter_storage::snapshot::{Change, Row};

/// No slot has this number, since [`Terms::SLOT_BITS_MAX`] is far below 16.
const CLUSTER: u16 = u16::MAX;

/// One change of the snapshot, cheap to make: registers are shared with the state.
#[derive(Clone, Debug)]
pub(super) enum RowChange {
    /// All of a slot is gone.
    Drop(SlotId),
    /// What a slot has beside its registers.
    Slot(SlotId, Box<Meta>),
    /// A register.
    Register(SlotId, Key, Version, Arc<Register>),
    /// There is no such register any more.
    Remove(SlotId, Key),
    /// What the cluster agreed on.
    Terms(Terms),
    /// A row of the peer book.
    Remember(Peer),
    /// A row of the peer book is gone.
    Forget(NodeId),
}

/// The bytes of a change.
pub(super) struct Encoded {
    slot: u16,
    what: What,
}

enum What {
    Drop,
    Slot(Vec<u8>),
    Register { key: Vec<u8>, version: Vec<u8>, value: Vec<u8> },
    Remove(Vec<u8>),
}

impl RowChange {
    /// # Errors
    /// What the node holds is larger than it may be, which the core never lets happen.
    pub(super) fn encode(&self) -> Result<Encoded, CodecError> {
        let (slot, what) = match self {
            Self::Drop(slot) => (slot.0, What::Drop),
            Self::Slot(slot, meta) => (slot.0, What::Slot(bytes(meta.as_ref())?)),
            Self::Register(slot, key, version, register) => {
                let (version, value) = (bytes(version)?, bytes(register.as_ref())?);
                (slot.0, What::Register { key: key.clone(), version, value })
            }
            Self::Remove(slot, key) => (slot.0, What::Remove(key.clone())),
            Self::Terms(terms) => (CLUSTER, What::Slot(bytes(terms)?)),
            Self::Remember(peer) => {
                let key = peer.id.0.to_be_bytes().to_vec();
                (CLUSTER, What::Register { key, version: Vec::new(), value: bytes(peer)? })
            }
            Self::Forget(node) => (CLUSTER, What::Remove(node.0.to_be_bytes().to_vec())),
        };
        Ok(Encoded { slot, what })
    }
}

impl Encoded {
    pub(super) fn change(&self) -> Change<'_> {
        let slot = self.slot;
        match &self.what {
            What::Drop => Change::Drop { slot },
            What::Slot(meta) => Change::Put(Row::Slot { slot, meta }),
            What::Register { key, version, value } => Change::Put(Row::Register { slot, key, version, value }),
            What::Remove(key) => Change::Remove { slot, key },
        }
    }
}

/// Takes a row of the snapshot into the state.
///
/// # Errors
/// The row is of another version of the program, or not ours.
pub(super) fn take(state: &mut State, node: NodeId, rules: Rules, row: Row<'_>) -> Result<(), CodecError> {
    match row {
        Row::Slot { slot: CLUSTER, meta } => state.terms = Some(codec::decode(meta)?),
        Row::Slot { slot, meta } => {
            let meta: Meta = codec::decode(meta)?;
            state.slots.insert(SlotId(slot), Durable::restore(node, rules, meta));
        }
        Row::Register { slot: CLUSTER, key: _, version: _, value } => {
            let peer: Peer = codec::decode(value)?;
            state.peers.insert(peer.id, peer);
        }
        Row::Register { slot, key, version, value } => {
            let (version, register): (Version, Register) = (codec::decode(version)?, codec::decode(value)?);
            let durable = state.slots.entry(SlotId(slot)).or_insert_with(|| Durable::new(node, rules));
            durable.hold(key.to_vec(), version, Arc::new(register));
        }
    }
    Ok(())
}

fn bytes<T: serde::Serialize + codec::Bounded>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes)?;
    Ok(bytes)
}
