//! Who wrote a directory.

/// The node that a directory belongs to. Every file of it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node.
    pub node: [u8; 16],
    /// Its cluster.
    pub cluster: [u8; 16],
}
