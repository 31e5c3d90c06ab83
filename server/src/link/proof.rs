//! Checks that a client holds the key it registers, on this very connection, and spent the work that was asked.

use super::session::Proof;
use crate::identity::subject::client_id_of_key;
use ring::{digest, signature};
use specter_wire::{
    id::ClientId,
    link::{EXPORTER_BYTES, EXPORTER_LABEL, leading_zero_bits, signature_input, work_input},
};

/// The identity that `proof` proves on `connection`, or none.
pub(crate) fn check(connection: &quinn::Connection, proof: &Proof, work_bits: u8) -> Option<ClientId> {
    let mut exporter = [0; EXPORTER_BYTES];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").ok()?;
    check_against(&exporter, proof, work_bits)
}

fn check_against(exporter: &[u8; EXPORTER_BYTES], proof: &Proof, work_bits: u8) -> Option<ClientId> {
    let work = digest::digest(&digest::SHA256, &work_input(exporter, &proof.public_key, proof.counter));
    if leading_zero_bits(work.as_ref()) < u32::from(work_bits) {
        return None;
    }
    signature::UnparsedPublicKey::new(&signature::ED25519, &proof.public_key)
        .verify(&signature_input(exporter), &proof.signature)
        .ok()?;
    Some(client_id_of_key(&proof.public_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    const BITS: u8 = 8;

    fn proof(exporter: &[u8; 32]) -> Proof {
        let key = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("key");
        let public_key: [u8; 32] = key.public_key().as_ref().try_into().expect("32 bytes");
        let done = |counter: &u64| {
            let hash = digest::digest(&digest::SHA256, &work_input(exporter, &public_key, *counter));
            leading_zero_bits(hash.as_ref()) >= u32::from(BITS)
        };
        let counter = (0..).find(done).expect("found");
        let signature = key.sign(&signature_input(exporter)).as_ref().try_into().expect("64 bytes");
        Proof { public_key, signature, counter }
    }

    #[test]
    fn a_proof_holds_on_its_own_connection_only() {
        let good = proof(&[1; 32]);
        let expected = digest::digest(&digest::SHA256, &good.public_key);
        let id = check_against(&[1; 32], &good, BITS).expect("accepted");
        assert_eq!(id.0, expected.as_ref());
        // Without any work asked, only the signature can refuse the replay.
        assert_eq!(check_against(&[2; 32], &good, 0), None);
    }

    #[test]
    fn another_key_or_less_work_is_refused() {
        let good = proof(&[1; 32]);
        assert_eq!(check_against(&[1; 32], &good, 60), None);
        let other_key = Proof { public_key: [9; 32], ..good };
        assert_eq!(check_against(&[1; 32], &other_key, 0), None);
    }
}
