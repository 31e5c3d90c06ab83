//! How fast this machine is at the moment, beside the one on which the goals in CPU seconds were set.
//!
//! Encrypting packets needs nothing but the core, so it tells a slow core from a slow program. It is no scale: most of
//! what bulk costs is the kernel's copying, which varies apart from it. Figures are judged as measured.

use crate::{Outcome, procfs};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// CPU seconds that sealing a GiB took where the goals were set.
pub(crate) const REFERENCE_CPU_S_PER_GIB: f64 = 0.19;

/// A packet of QUIC at the usual MTU.
const PACKET_BYTES: usize = 1420;

/// Enough for some 50 ms.
const PACKETS: u32 = 200_000;

/// CPU seconds to seal a GiB of packets.
pub(crate) fn seal_cpu_s_per_gib() -> Outcome<f64> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| "16 bytes are no key")?;
    let key = LessSafeKey::new(key);
    let mut packet = [0; PACKET_BYTES];
    let before = procfs::cpu(std::process::id());
    for number in 0..PACKETS {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut packet);
        let _tag = std::hint::black_box(tag.map_err(|_| "a packet was not sealed")?);
    }
    let spent = procfs::cpu(std::process::id()).saturating_sub(before);
    let gib = f64::from(PACKETS) * PACKET_BYTES as f64 / f64::from(1 << 30);
    Ok(spent.as_secs_f64() / gib)
}
