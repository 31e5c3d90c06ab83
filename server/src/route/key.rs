//! What the store holds about hostnames.
//!
//! | key | facet | value |
//! |---|---|---|
//! | `/hostname/<hostname>` | value | [`Registration`]: the one truth about who owns the name |
//! | `/client/hostnames/<client id>` | set | the names of a client, so that they can be listed |
//! | `/route/<hostname>` | set | a [`Route`] for each node that has a link for the name |
//!
//! A name enters the client's set before it is registered and leaves it after, so a crash in between leaves at worst a
//! name in the set that nobody owns, which its client may register by publishing it.

use crate::{link::registry::Tunnel, node::Key};
use serde::{Deserialize, Serialize};
use specter_wire::{
    address::Address,
    id::ClientId,
    link::{self, Carries, HostHeader},
    name::Hostname,
};
use std::net::SocketAddr;

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

/// A node that has a link for a hostname, and what it knows of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Where other nodes reach it.
    pub(super) node: SocketAddr,
    pub(super) tunnel: Tunnel,
}

/// Stands before a [`StoredRoute`]: another version of it gets another number.
const ROUTE_VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct StoredRoute<'a> {
    node: Address,
    carries: Carries,
    #[serde(borrow)]
    host: HostHeader<'a>,
    header_timeout_ms: u32,
}

impl Route {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Tunnel { carries, host, header_timeout } = &self.tunnel;
        let stored = StoredRoute {
            node: self.node.into(),
            carries: *carries,
            host: host.as_deref().map_or(HostHeader::Hostname, HostHeader::Fixed),
            header_timeout_ms: u32::try_from(header_timeout.as_millis()).unwrap_or(u32::MAX),
        };
        let bytes = vec![ROUTE_VERSION];
        postcard::to_extend(&stored, bytes).expect("it has no part that cannot be written")
    }

    /// None for bytes that this version did not write, or that pass a bound.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let StoredRoute { node, carries, host, header_timeout_ms } = match bytes.split_first()? {
            (&ROUTE_VERSION, stored) => postcard::from_bytes(stored).ok()?,
            (_, _) => return None,
        };
        let tunnel = Tunnel::checked(&link::Tunnel { hostname: "", carries, host, header_timeout_ms })?;
        Some(Self { node: node.into(), tunnel })
    }
}

pub(super) fn routes_of(hostname: &Hostname) -> Key {
    Key::new(format!("/route/{hostname}"))
}

pub(super) fn hostname(hostname: &Hostname) -> Key {
    Key::new(format!("/hostname/{hostname}"))
}

pub(super) fn hostnames_of(client: ClientId) -> Key {
    Key::new(format!("/client/hostnames/{client}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::limits::CHILD_BYTES;
    use specter_wire::limits::HEADER_TIMEOUT_MS_MAX;
    use std::time::Duration;

    fn route(host: Option<&str>) -> Route {
        let tunnel = Tunnel {
            carries: Carries::Either,
            host: host.map(Into::into),
            header_timeout: Duration::from_millis(HEADER_TIMEOUT_MS_MAX.into()),
        };
        Route { node: "[2001:db8::1]:65535".parse().expect("an address"), tunnel }
    }

    #[test]
    fn the_longest_route_fits_the_store_and_comes_back() {
        let longest = format!("{}:65535", ["a".repeat(63).as_str(); 4].join(".").get(..253).expect("long enough"));
        for route in [route(None), route(Some(&longest))] {
            let bytes = route.to_bytes();
            assert!(bytes.len() <= CHILD_BYTES, "{} bytes", bytes.len());
            assert_eq!(Route::from_bytes(&bytes), Some(route));
        }
    }

    #[test]
    fn bytes_that_are_no_route_are_none() {
        let good = route(None).to_bytes();
        for cut in 0..good.len() {
            assert_eq!(Route::from_bytes(&good[..cut]), None, "cut to {cut}");
        }
        let mut other_version = good.clone();
        other_version[0] = 2;
        assert_eq!(Route::from_bytes(&other_version), None);
        assert_eq!(Route::from_bytes(&route(Some("a\r\nx: y")).to_bytes()), None, "a header is smuggled");
    }
}
