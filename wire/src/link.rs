//! Control messages of a link: the client's requests and the node's replies, on the first stream of the link.
//!
//! The client opens that stream and sends [`Request::Hello`] first. Requests carry a number of the client's choice and
//! replies repeat it, so many may be under way at once; the node answers them in order. [`Reply::Ping`],
//! [`Reply::Neighbours`] and [`Reply::Draining`] come unasked, with number 0.
//!
//! Registration binds a key to the connection it is proven on: the transcript below uses a TLS exporter, so a captured
//! proof is worth nothing elsewhere, and the node keeps no table of used proofs.

use crate::{
    address::Address,
    error::ErrorCode,
    id::NodeId,
    limits::{AGENT_BYTES, AUTHORITY_BYTES, BATCH, HEADER_TIMEOUT_MS_MAX, NEIGHBOURS},
    name::is_authority,
};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Label of the TLS exporter (RFC 5705) that ties a registration to its connection. The context is empty.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-specter-register-1";

/// Bytes taken from the exporter.
pub const EXPORTER_BYTES: usize = 32;

/// Length of what is hashed for the proof of work: exporter, public key, counter.
pub const WORK_BYTES: usize = EXPORTER_BYTES + 32 + 8;

/// Lays out what is hashed for the proof of work: SHA-256 of it must begin with the asked number of zero bits.
pub fn work_input(exporter: &[u8; EXPORTER_BYTES], public_key: &[u8; 32], counter: u64) -> [u8; WORK_BYTES] {
    let mut input = [0; WORK_BYTES];
    input[..32].copy_from_slice(exporter);
    input[32..64].copy_from_slice(public_key);
    input[64..].copy_from_slice(&counter.to_le_bytes());
    input
}

/// Leading zero bits of a digest.
pub fn leading_zero_bits(digest: &[u8]) -> u32 {
    let mut bits = 0;
    for byte in digest {
        bits += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    bits
}

/// Lays out what the client signs to register: a domain tag, then the exporter.
pub fn signature_input(exporter: &[u8; EXPORTER_BYTES]) -> [u8; SIGNATURE_TAG.len() + EXPORTER_BYTES] {
    let mut input = [0; SIGNATURE_TAG.len() + EXPORTER_BYTES];
    input[..SIGNATURE_TAG.len()].copy_from_slice(SIGNATURE_TAG);
    input[SIGNATURE_TAG.len()..].copy_from_slice(exporter);
    input
}

const SIGNATURE_TAG: &[u8] = b"specter register 1\0";

/// A numbered request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClientFrame<'a> {
    /// Repeated by the reply; not 0.
    pub id: u32,
    /// What is asked.
    #[serde(borrow)]
    pub request: Request<'a>,
}

/// A numbered reply, or an unasked message with number 0.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeFrame<'a> {
    /// The request's number.
    pub id: u32,
    /// The answer.
    #[serde(borrow)]
    pub reply: Reply<'a>,
}

/// What a client may ask.
#[expect(clippy::large_enum_variant, reason = "without an allocator a batch stands in place; one is decoded at a time")]
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request<'a> {
    /// First message of a link. Answer: [`Reply::Welcome`].
    Hello {
        /// Tells clients of one identity apart, the same after a restart of one. A newer link of the same identity and
        /// instance replaces the older at once.
        instance: u64,
        /// Name and version of the program, at most [`AGENT_BYTES`].
        agent: &'a str,
    },
    /// Asks for a certificate for a key, on a link without one. Answer: [`Reply::Certificate`].
    Register {
        /// Raw Ed25519 public key, 32 bytes.
        public_key: &'a [u8],
        /// Ed25519 signature over [`signature_input`], 64 bytes.
        signature: &'a [u8],
        /// Counter that makes [`work_input`] hash to enough zero bits.
        counter: u64,
    },
    /// Asks for a new certificate for the key of this link. Answer: [`Reply::Certificate`].
    Renew,
    /// Asks which hostnames the identity owns, those after `after` in order. Answer: [`Reply::Hostnames`].
    Hostnames {
        /// Last name of the page before, or empty.
        after: &'a str,
    },
    /// Asks for that many new hostnames, at most [`BATCH`]. Answer: [`Reply::Hostnames`].
    Claim {
        /// How many.
        count: u8,
    },
    /// Tells the node that this link serves these tunnels. Answer: [`Reply::Outcomes`], one per tunnel, in order.
    Publish {
        /// At most [`BATCH`].
        #[serde(borrow)]
        tunnels: Vec<Tunnel<'a>, BATCH>,
    },
    /// This link no longer serves these hostnames; they stay the identity's. Answer: [`Reply::Outcomes`].
    Unpublish {
        /// At most [`BATCH`].
        #[serde(borrow)]
        hostnames: Vec<&'a str, BATCH>,
    },
    /// The identity gives these hostnames back. Answer: [`Reply::Outcomes`].
    Release {
        /// At most [`BATCH`].
        #[serde(borrow)]
        hostnames: Vec<&'a str, BATCH>,
    },
    /// Answers [`Reply::Ping`]; itself not answered.
    Pong {
        /// The ping's number.
        nonce: u64,
    },
}

/// What a node answers.
#[expect(clippy::large_enum_variant, reason = "without an allocator a batch stands in place; one is decoded at a time")]
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// Who the node takes the client for, and how it serves.
    Welcome {
        /// Which node this is, so that a client keeps one link to each.
        node: NodeId,
        /// Whether the client showed a valid certificate of this cluster.
        registered: bool,
        /// Zero bits that [`Request::Register`] must show.
        work_bits: u8,
        /// First apex: tunnels are reached at `<hostname>.<apex>`.
        apex: &'a str,
        /// Port at which visitors reach the gateway from outside.
        port: u16,
    },
    /// A certificate for the client's key.
    Certificate {
        /// The chain in PEM, leaf first, at most [`crate::limits::CERTIFICATE_PEM_BYTES`].
        pem: &'a str,
    },
    /// Hostnames in order.
    Hostnames {
        /// At most [`BATCH`].
        #[serde(borrow)]
        names: Vec<&'a str, BATCH>,
        /// Whether more follow after the last of these.
        more: bool,
    },
    /// One outcome for each item asked, in order; none means success.
    Outcomes {
        /// At most [`BATCH`].
        outcomes: Vec<Option<ErrorCode>, BATCH>,
    },
    /// The whole request failed; nothing was done.
    Refused {
        /// Why.
        code: ErrorCode,
    },
    /// Asks for a [`Request::Pong`] at once. A link that stays silent is closed.
    Ping {
        /// To be repeated.
        nonce: u64,
    },
    /// The node goes away: open links elsewhere; streams in progress may still end.
    Draining,
    /// Other nodes where the client may open links, in no order. Told after [`Reply::Welcome`] and again when it changes;
    /// a node that is no longer named may still serve.
    Neighbours {
        /// At most [`NEIGHBOURS`].
        nodes: Vec<Neighbour, NEIGHBOURS>,
    },
}

/// A node where a client may open a link: at this address, by the name of the apex.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Neighbour {
    /// Which node.
    pub node: NodeId,
    /// Where it takes links.
    pub address: Address,
}

/// A tunnel as the gateway needs to know it. What it leads to stays with the client.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tunnel<'a> {
    /// One label for a name under the apex, a full name for a custom domain.
    pub hostname: &'a str,
    /// Which protocols the target takes.
    pub carries: Carries,
    /// Which `Host` the target is shown.
    #[serde(borrow)]
    pub host: HostHeader<'a>,
    /// How long the gateway waits for the head of the target's answer, in milliseconds; 1 to
    /// [`HEADER_TIMEOUT_MS_MAX`].
    pub header_timeout_ms: u32,
}

/// Which protocols a target takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Carries {
    /// Bytes only: `tcp://`.
    Raw,
    /// HTTP only, so that a visitor cannot get around the gateway's headers: `http://`, `https://`.
    Http,
    /// Either, as the visitor asks: Unix sockets and named pipes.
    Either,
}

impl Carries {
    /// Whether visitors may send raw bytes.
    pub fn raw(self) -> bool {
        match self {
            Self::Raw | Self::Either => true,
            Self::Http => false,
        }
    }

    /// Whether visitors may send HTTP.
    pub fn http(self) -> bool {
        match self {
            Self::Http | Self::Either => true,
            Self::Raw => false,
        }
    }
}

/// Which `Host` header a target is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HostHeader<'a> {
    /// The tunnel's own full name, as the visitor asked for it.
    Hostname,
    /// This text, at most [`AUTHORITY_BYTES`], as [`is_authority`] allows.
    Fixed(&'a str),
}

impl Tunnel<'_> {
    /// Whether every field keeps its stated bound. The hostname is checked by [`crate::name::Hostname::parse`].
    pub fn is_within_bounds(&self) -> bool {
        let host = match self.host {
            HostHeader::Hostname => true,
            HostHeader::Fixed(text) => text.len() <= AUTHORITY_BYTES && is_authority(text),
        };
        host && (1..=HEADER_TIMEOUT_MS_MAX).contains(&self.header_timeout_ms)
    }
}

/// Whether an agent text may be logged: at most [`AGENT_BYTES`] visible ASCII characters.
pub fn is_agent(text: &str) -> bool {
    text.len() <= AGENT_BYTES && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bits_are_counted_from_the_front() {
        assert_eq!(leading_zero_bits(&[0, 0x10, 0]), 11);
        assert_eq!(leading_zero_bits(&[0x80]), 0);
        assert_eq!(leading_zero_bits(&[0, 0]), 16);
    }

    #[test]
    fn a_tunnel_out_of_bounds_is_told() {
        let tunnel =
            |host, header_timeout_ms| Tunnel { hostname: "a", carries: Carries::Http, host, header_timeout_ms };
        assert!(tunnel(HostHeader::Hostname, 15_000).is_within_bounds());
        assert!(!tunnel(HostHeader::Hostname, 0).is_within_bounds());
        assert!(!tunnel(HostHeader::Hostname, u32::MAX).is_within_bounds());
        assert!(!tunnel(HostHeader::Fixed("a\r\nx: y"), 1).is_within_bounds());
    }
}
