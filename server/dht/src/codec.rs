//! Bytes of messages, requests and log records, and what of it is believed: every number, length and list that another
//! machine or the disk hands over is held to a bound before anything looks at it. Those of a slot are in
//! [`limits`](crate::kv::limits).

mod config;
mod frugal;
mod message;
mod packet;
mod register;
mod request;
mod ring;

#[cfg(test)]
mod tests;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::kv::Key;
use crate::kv::limits::{KEY_MAX, SEQ_MAX};
use crate::{Ballot, Version};
use frugal::Frugal;

/// The longest encoding of one value.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The most machines in one list.
pub const PEERS_MAX: usize = 64;
/// The highest counter of a ballot; far from the last one, so that counting on from it does not overflow.
pub const COUNTER_MAX: u32 = 1 << 31;
/// The highest of the other numbers that somebody counts on from: rounds of questions, lives of a machine.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Why bytes are no value, or a value has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("an encoding of {0} bytes is longer than a frame")]
    Length(usize),
    /// Not a value of the expected type.
    #[error("the bytes are not what they should be: {0}")]
    Malformed(postcard::Error),
    /// Bytes are left behind the value.
    #[error("{0} bytes are left behind the value")]
    Trailing(usize),
    /// A part of the value is outside its bounds.
    #[error("{0}")]
    OutOfBounds(&'static str),
}

/// A type whose every part has a bound.
pub trait Bounded {
    /// Holds every part to its bound.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn check(&self) -> Result<(), &'static str>;
}

/// Writes a value behind what the buffer holds. What this writes, [`decode`] reads; on an error the buffer is as it was.
///
/// # Errors
/// [`CodecError::OutOfBounds`] and [`CodecError::Length`]: the value is more than another machine would take.
pub fn encode<T: Serialize + Bounded>(value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    value.check().map_err(CodecError::OutOfBounds)?;
    let start = buffer.len();
    let outcome = postcard::to_extend(value, Tail(buffer)).map_err(CodecError::Malformed);
    let outcome = outcome.map(|Tail(buffer)| buffer.len() - start);
    match outcome {
        Ok(length) if length <= FRAME_BYTES_MAX => Ok(()),
        Ok(length) => {
            buffer.truncate(start);
            Err(CodecError::Length(length))
        }
        Err(error) => {
            buffer.truncate(start);
            Err(error)
        }
    }
}

/// Reads one value that takes all the bytes, and holds it to its bounds.
///
/// # Errors
/// Any [`CodecError`]; nothing of the bytes is to be believed then.
pub fn decode<T: DeserializeOwned + Bounded>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::Length(bytes.len()));
    }
    let mut deserializer = postcard::Deserializer::from_flavor(Frugal::new(bytes));
    let value = T::deserialize(&mut deserializer).map_err(CodecError::Malformed)?;
    match deserializer.finalize().map_err(CodecError::Malformed)? {
        0 => {}
        left => return Err(CodecError::Trailing(left)),
    }
    value.check().map_err(CodecError::OutOfBounds)?;
    Ok(value)
}

/// The end of a buffer, for postcard to write at.
struct Tail<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Tail<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

impl Bounded for Ballot {
    fn check(&self) -> Result<(), &'static str> {
        let Self { counter, node: _ } = self;
        ensure(*counter <= COUNTER_MAX, "the counter of a ballot is too high")
    }
}

impl Bounded for Version {
    fn check(&self) -> Result<(), &'static str> {
        let Self { ballot, seq } = self;
        ballot.check()?;
        check_seq(*seq)
    }
}

impl<T: Bounded> Bounded for Option<T> {
    fn check(&self) -> Result<(), &'static str> {
        self.as_ref().map_or(Ok(()), T::check)
    }
}

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn check_number(number: u64) -> Result<(), &'static str> {
    ensure(number <= NUMBER_MAX, "a number that somebody counts on from is too high")
}

fn check_seq(seq: u64) -> Result<(), &'static str> {
    ensure(seq <= SEQ_MAX, "a place in a leader's order is too high")
}

fn check_key(key: &Key) -> Result<(), &'static str> {
    ensure(key.len() <= KEY_MAX, "a key is too long")
}
