//! What Specter's clients and nodes say to each other.
//!
//! Data only: no IO, no policy, no allocation. Messages borrow from the frame they were decoded from; what is kept is
//! bounded by [`limits`]. Every message is one postcard value in one length-prefixed frame ([`codec`]); both sides learn
//! the version from the ALPN name ([`version`]), so a frame never needs one.
//!
//! | module | holds |
//! |---|---|
//! | [`version`] | protocol version and ALPN names |
//! | [`limits`] | every size and count that bounds a message |
//! | [`id`] | identities of clients, nodes and links |
//! | [`name`] | hostnames and HTTP authorities |
//! | [`link`] | control messages of a client's link |
//! | [`stream`] | the header of a visitor's stream and its answer |
//! | [`error`] | the one table of failures that travel |
//! | [`codec`] | frames |
//! | `point` | where nodes and keys stand on the ring (feature `node`) |
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod codec;
pub mod error;
pub mod id;
pub mod limits;
pub mod link;
pub mod name;
#[cfg(feature = "node")]
pub mod point;
pub mod stream;
pub mod version;
