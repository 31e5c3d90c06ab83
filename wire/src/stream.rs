//! A visitor's stream on a link.
//!
//! The node opens the stream and sends one [`StreamHeader`] frame with the visitor's first bytes right behind it. The
//! client dials the target and answers with one byte: [`CONNECTED`], then the target's bytes follow, or the number of an
//! [`ErrorCode`], then the stream ends.

use crate::error::{ErrorCode, UnknownCode};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use serde::{Deserialize, Serialize};

/// The status byte of a stream that reached its target.
pub const CONNECTED: u8 = 0;

/// Reads a status byte.
///
/// # Errors
/// The outer error is a number this version does not know; the inner one is the far end's refusal.
pub fn status(byte: u8) -> Result<Result<(), ErrorCode>, UnknownCode> {
    match byte {
        CONNECTED => Ok(Ok(())),
        number => ErrorCode::try_from(number).map(Err),
    }
}

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamHeader<'a> {
    /// How the bytes are to reach the target.
    pub kind: StreamKind,
    /// The tunnel, as published on this link.
    pub hostname: &'a str,
    /// Who visits. A pooled HTTP stream names the first of its visitors.
    pub visitor: Visitor,
}

/// How a stream's bytes reach the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamKind {
    /// As they are.
    Raw,
    /// As HTTP/1.1; an `https://` target is offered `http/1.1`.
    Http1,
    /// As HTTP/2 with prior knowledge; an `https://` target is offered `h2`.
    Http2,
}

/// A visitor's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Visitor {
    /// IPv4 or IPv6 in network order.
    pub ip: VisitorIp,
    /// TCP or UDP port.
    pub port: u16,
}

/// Bytes of an IP address, in network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VisitorIp {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl From<SocketAddr> for Visitor {
    /// An IPv4 address inside IPv6 is told as the IPv4 address that it is.
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => VisitorIp::V4(ip.octets()),
            IpAddr::V6(ip) => VisitorIp::V6(ip.octets()),
        };
        Self { ip, port: address.port() }
    }
}

impl From<Visitor> for SocketAddr {
    fn from(visitor: Visitor) -> Self {
        let ip = match visitor.ip {
            VisitorIp::V4(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            VisitorIp::V6(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
        };
        Self::new(ip, visitor.port)
    }
}
