//! Where the decoder takes its bytes from.

use postcard::de_flavors::Flavor;
use postcard::{Error, Result};

/// A slice that promises no elements: a list grows with what is really there. A hint of as many elements as bytes are
/// left would let a peer reserve dozens of bytes of memory with each one that it sends.
pub(super) struct Frugal<'a> {
    rest: &'a [u8],
}

impl<'a> Frugal<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Flavor<'a> for Frugal<'a> {
    type Remainder = usize;
    type Source = &'a [u8];

    fn pop(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(0)
    }

    fn try_take_n(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::DeserializeUnexpectedEnd)?;
        self.rest = rest;
        Ok(taken)
    }

    /// How many bytes are left.
    fn finalize(self) -> Result<usize> {
        Ok(self.rest.len())
    }
}
