//! Failures that travel between programs, as numbers. Nobody ever matches on their text.

use core::fmt;
use serde::{Deserialize, Serialize};

/// What went wrong, as the peer that noticed it names it.
///
/// A number, once given, is never used for anything else; 0 is [`crate::stream::CONNECTED`] and no error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum ErrorCode {
    /// No tunnel of that name was ever published.
    UnknownHostname = 1,
    /// The tunnel exists and no client is linked for it.
    NoLiveLink = 2,
    /// The target refused the connection, or its socket file does not exist.
    TargetRefused = 3,
    /// The target did not answer in time.
    TargetTimeout = 4,
    /// The target's name or address cannot be reached from the client.
    TargetUnreachable = 5,
    /// The target's TLS certificate or handshake failed, or it does not speak the protocol asked for.
    TargetProtocol = 6,
    /// The tunnel carries something else: HTTP was asked of a raw tunnel or raw bytes of an HTTP tunnel.
    WrongKind = 7,
    /// A stated limit is reached: streams, links, hostnames.
    Limit = 8,
    /// The peer sent what the protocol does not allow.
    Malformed = 9,
    /// The proof of work or its signature is wrong, or came too late.
    BadProof = 10,
    /// The client has no valid certificate yet: it must register first.
    NotRegistered = 11,
    /// The hostname belongs to another identity, or to nobody.
    NotOwner = 12,
    /// The store cannot take the request now; nothing was changed.
    Unavailable = 13,
    /// The node is going away.
    Draining = 14,
    /// Something failed inside the peer; its log knows more.
    Internal = 15,
}

impl ErrorCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::UnknownHostname,
        Self::NoLiveLink,
        Self::TargetRefused,
        Self::TargetTimeout,
        Self::TargetUnreachable,
        Self::TargetProtocol,
        Self::WrongKind,
        Self::Limit,
        Self::Malformed,
        Self::BadProof,
        Self::NotRegistered,
        Self::NotOwner,
        Self::Unavailable,
        Self::Draining,
        Self::Internal,
    ];

    /// The code of that number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The number that travels.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn retry(self) -> bool {
        match self {
            Self::NoLiveLink
            | Self::TargetTimeout
            | Self::Limit
            | Self::Unavailable
            | Self::Draining
            | Self::Internal => true,
            Self::UnknownHostname
            | Self::TargetRefused
            | Self::TargetUnreachable
            | Self::TargetProtocol
            | Self::WrongKind
            | Self::Malformed
            | Self::BadProof
            | Self::NotRegistered
            | Self::NotOwner => false,
        }
    }
}

impl From<ErrorCode> for u8 {
    fn from(code: ErrorCode) -> Self {
        code.number()
    }
}

impl TryFrom<u8> for ErrorCode {
    type Error = UnknownCode;

    fn try_from(number: u8) -> Result<Self, UnknownCode> {
        Self::from_number(number).ok_or(UnknownCode(number))
    }
}

/// A number that no [`ErrorCode`] has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownCode(pub u8);

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no error number of this protocol version", self.0)
    }
}

impl core::error::Error for UnknownCode {}

/// A sentence for a person, without a full stop.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownHostname => "no tunnel of that name exists",
            Self::NoLiveLink => "the tunnel exists, but its client is not connected",
            Self::TargetRefused => "the service behind the tunnel refuses connections",
            Self::TargetTimeout => "the service behind the tunnel did not answer in time",
            Self::TargetUnreachable => "the service behind the tunnel cannot be reached from its client",
            Self::TargetProtocol => "the service behind the tunnel failed the TLS or protocol handshake",
            Self::WrongKind => "the tunnel does not carry this protocol",
            Self::Limit => "a limit on connections or names is reached",
            Self::Malformed => "the peer sent a message that the protocol does not allow",
            Self::BadProof => "the proof of identity was refused",
            Self::NotRegistered => "the client is not registered",
            Self::NotOwner => "the hostname belongs to somebody else",
            Self::Unavailable => "the node's store is not available",
            Self::Draining => "the node is shutting down",
            Self::Internal => "an internal error occurred in the node",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_match_both_ways() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), index + 1);
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(16), None);
    }
}
