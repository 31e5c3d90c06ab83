//! Protocol version and the ALPN names that carry it together with the role of a connection.

/// Version of everything in this crate. Any change of a message that an older peer cannot read raises it.
pub const PROTOCOL: u16 = 1;

/// A client's link to a node: QUIC, or TLS over TCP where UDP is blocked.
pub const ALPN_LINK: &[u8] = b"specter-link/1";

/// One visitor's raw bytes to the tunnel named by SNI. The gateway answers with one status byte
/// ([`crate::stream::CONNECTED`] or an error), then the bytes follow.
pub const ALPN_CONNECT: &[u8] = b"specter-connect/1";

/// What nodes of one cluster say to each other: QUIC, both sides with a certificate of the cluster CA.
pub const ALPN_NODE: &[u8] = b"specter-node/1";

/// Visitors' streams from one node to another that has a link for them: QUIC, both sides with a certificate of the
/// cluster CA. Apart from [`ALPN_NODE`], so that neither a visitor's megabytes nor its silence holds the store up. The
/// node that was dialed opens one stream itself, with nothing in it, when it is about to go away: visitors should go elsewhere.
pub const ALPN_RELAY: &[u8] = b"specter-relay/1";
