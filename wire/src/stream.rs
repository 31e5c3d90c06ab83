//! A visitor's stream on a link.
//!
//! The node opens the stream and sends one [`StreamHeader`] frame with the visitor's first bytes right behind it. The
//! client dials the target and answers with one byte: [`CONNECTED`], then the target's bytes follow, or the number of an
//! [`ErrorCode`], then the stream ends.
//!
//! A node that has no link itself sends the same on a stream to a node that has one ([`crate::version::ALPN_RELAY`]).
//! That node says at once with [`PASSED_ON`] that a link took the stream, and joins the two: what comes behind that byte
//! is the client's. Without a link it answers [`ErrorCode::NoLiveLink`]; it never passes a stream on to a third node.
//! To a stream that ends without a header it answers with some byte: so it is asked whether it lives. To a header of
//! [`StreamKind::Life`] it answers [`PASSED_ON`] if its links for the tunnel show life, and [`ErrorCode::NoLiveLink`] if not.

use crate::{
    address::Address,
    error::{ErrorCode, UnknownCode},
};
use serde::{Deserialize, Serialize};

/// The status byte of a stream that reached its target.
pub const CONNECTED: u8 = 0;

/// The first byte of an answer to another node: a link took the stream. The client's status byte follows.
pub const PASSED_ON: u8 = 255;

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
    pub visitor: Address,
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
    /// Not at all: one node asks another whether its links are alive. No client is sent this.
    Life,
}
