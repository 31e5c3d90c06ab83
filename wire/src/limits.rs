//! Sizes and counts that bound what a peer can make us hold.

/// Longest hostname in bytes (RFC 1035 §2.3.4, without the root dot).
pub const HOSTNAME_BYTES: usize = 253;

/// Longest HTTP authority in bytes: a hostname, a colon, five digits of a port.
pub const AUTHORITY_BYTES: usize = HOSTNAME_BYTES + 6;

/// Most hostnames or tunnels in one message. A client with more sends several messages without waiting between them.
pub const BATCH: usize = 64;

/// Longest control frame in bytes, length prefix not counted: a batch of tunnels with the longest names fits.
pub const CONTROL_FRAME_BYTES: usize = BATCH * (HOSTNAME_BYTES + AUTHORITY_BYTES + 16) + 64;

/// Longest stream header frame in bytes, length prefix not counted.
pub const STREAM_FRAME_BYTES: usize = HOSTNAME_BYTES + 64;

/// Longest name and version of a program that a peer may state, in bytes.
pub const AGENT_BYTES: usize = 64;

/// Longest client certificate in PEM, in bytes. Ours take about 700.
pub const CERTIFICATE_PEM_BYTES: usize = 4096;

/// Most leading zero bits a node may ask for in a proof of work. A client refuses more: 2^24 hashes take a
/// 600 MHz router about two minutes.
pub const WORK_BITS_MAX: u8 = 24;

/// Longest wait for the head of a target's answer that a tunnel may ask for, in milliseconds: one hour.
pub const HEADER_TIMEOUT_MS_MAX: u32 = 3_600_000;

/// Most nodes that a node names to a client at a time.
pub const NEIGHBOURS: usize = 16;
