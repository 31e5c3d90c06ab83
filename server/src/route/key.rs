//! What the store holds about hostnames.
//!
//! | key | facet | value |
//! |---|---|---|
//! | `/hostname/<hostname>` | value | [`Registration`]: the one truth about who owns the name |
//! | `/client/hostnames/<client id>` | set | the names of a client, so that they can be listed |
//!
//! A name enters the client's set before it is registered and leaves it after, so a crash in between leaves at worst a
//! name in the set that nobody owns, which its client may register by publishing it.

use crate::node::Key;
use specter_wire::{id::ClientId, name::Hostname};

/// Who owns a hostname.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) owner: ClientId,
}

impl Registration {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        self.owner.0.to_vec()
    }

    /// None for bytes that this version did not write.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|owner| Self { owner: ClientId(owner) })
    }
}

pub(super) fn hostname(hostname: &Hostname) -> Key {
    Key::new(format!("/hostname/{hostname}"))
}

pub(super) fn hostnames_of(client: ClientId) -> Key {
    Key::new(format!("/client/hostnames/{client}"))
}
