//! Where nodes and keys stand on the ring. Changing anything here moves every key: a new protocol version.

use xxhash_rust::xxh3::xxh3_64;

/// Bits of a point. The ring goes from zero up to [`LAST`] and from there to zero again.
pub const BITS: u32 = 48;

/// The last point before zero.
pub const LAST: u64 = (1 << BITS) - 1;

/// Where a key stands: its xxh3-64 hash modulo 2^48.
pub fn of_key(key: &[u8]) -> u64 {
    xxh3_64(key) & LAST
}

/// Where a virtual node stands: the hash of the node's identity, most significant byte first, and the number of the
/// virtual node, modulo 2^48.
pub fn of_node(node: u128, seat: u8) -> u64 {
    let mut bytes = [seat; 17];
    bytes[..16].copy_from_slice(&node.to_be_bytes());
    xxh3_64(&bytes) & LAST
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another implementation of the hash.
    #[test]
    fn points_are_the_same_for_ever() {
        assert_eq!(of_key(b""), 0x8005_38d3_94c2);
        assert_eq!(of_key(b"route/alpha-bravo"), 0x92fe_4d25_ec1a);
        assert_eq!(of_node(0, 0), 0x5ca0_df7a_d4c1);
        assert_eq!(of_node(0x0123_4567_89ab_cdef_0011_2233_4455_6677, 3), 0x48b0_010c_9879);
    }
}
