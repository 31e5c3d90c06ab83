//! The proof of work of a registration.

use ring::digest::{SHA256, digest};
use specter_wire::link::{EXPORTER_BYTES, leading_zero_bits, work_input};

/// Finds the counter that makes the hash begin with `bits` zero bits, or None if none shows up in 64 times the expected
/// number of tries, which does not happen by chance.
///
/// Yields to the runtime between short runs: a slow router works for minutes and must keep its link alive meanwhile.
///
/// # Cancel safety
/// Nothing is lost but the tries.
pub(crate) async fn prove(exporter: &[u8; EXPORTER_BYTES], public_key: &[u8; 32], bits: u8) -> Option<u64> {
    let tries = 1_u64.checked_shl(u32::from(bits) + 6)?;
    let mut counter = 0;
    while counter < tries {
        let run = counter..(counter + RUN).min(tries);
        counter = run.end;
        let mut run = run;
        let found = run.find(|counter| {
            let hash = digest(&SHA256, &work_input(exporter, public_key, *counter));
            leading_zero_bits(hash.as_ref()) >= u32::from(bits)
        });
        if found.is_some() {
            return found;
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Tries between two yields: under a millisecond on a PC, some tens on a 600 MHz router.
const RUN: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_found_counter_shows_the_asked_bits() {
        let (exporter, key) = ([7; 32], [9; 32]);
        let counter = prove(&exporter, &key, 12).await.expect("a proof");
        let hash = digest(&SHA256, &work_input(&exporter, &key, counter));
        assert!(leading_zero_bits(hash.as_ref()) >= 12);
    }
}
