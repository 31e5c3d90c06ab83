//! Frames: a little-endian `u16` length, then that many bytes of one postcard value.
//!
//! The length is judged before a single byte of the body is read, so a peer decides nothing about our memory.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 2;

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Longer than this kind of frame may be, or empty.
    Length(usize),
    /// Not a value of the expected type, or bytes left over behind it.
    Body,
    /// The value does not fit the buffer given for it.
    Buffer,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a frame of {length} bytes is outside its bounds"),
            Self::Body => f.write_str("a frame does not hold the expected message"),
            Self::Buffer => f.write_str("a message is too long for its frame"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Reads a length prefix and checks it against `limit`, the longest body allowed.
///
/// # Errors
/// [`FrameError::Length`] if the body would be empty or longer.
pub fn body_length(prefix: [u8; PREFIX_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = usize::from(u16::from_le_bytes(prefix));
    if length == 0 || length > limit { Err(FrameError::Length(length)) } else { Ok(length) }
}

/// Reads one value that takes the whole body.
///
/// # Errors
/// [`FrameError::Body`] if it does not.
pub fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FrameError::Body),
    }
}

/// Writes prefix and value to the front of `buffer` and returns the frame.
///
/// # Errors
/// [`FrameError::Buffer`] if the buffer is too short or the body passes 65,535 bytes.
pub fn encode<'b, T: Serialize>(value: &T, buffer: &'b mut [u8]) -> Result<&'b [u8], FrameError> {
    let (prefix, body) = buffer.split_at_mut_checked(PREFIX_BYTES).ok_or(FrameError::Buffer)?;
    let length = postcard::to_slice(value, body).map_err(|_| FrameError::Buffer)?.len();
    let length_prefix = u16::try_from(length).map_err(|_| FrameError::Buffer)?;
    prefix.copy_from_slice(&length_prefix.to_le_bytes());
    Ok(&buffer[..PREFIX_BYTES + length])
}
