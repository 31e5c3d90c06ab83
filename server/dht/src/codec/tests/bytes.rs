//! Bytes that nobody meant: a random test on a stable compiler, and a fuzz target for `cargo bolero`.

use std::fmt::Debug;
use std::time::Duration;

use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::{Serialize, de::DeserializeOwned};

use super::encoded;
use super::strategy::{self, Span};
use crate::Peer;
use crate::codec::{Bounded, decode};
use crate::{kv, ring};

/// How long each decoder is fed on every test run.
const TIME: Duration = Duration::from_secs(2);

/// A value that is believed is one that could have been sent.
fn feed<T: Serialize + DeserializeOwned + Bounded + Debug>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else { return };
    let again: T = decode(&encoded(&value)).expect("what was believed is within its bounds");
    assert_eq!(format!("{value:?}"), format!("{again:?}"));
}

/// Encodings of some values, for the input to damage: bytes at random hardly ever get past the first list.
fn seeds<T: Serialize + Bounded + Debug>(values: impl Strategy<Value = T>) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    (0..64).map(|_| encoded(&values.new_tree(&mut runner).expect("no value is filtered out").current())).collect()
}

/// Takes one of the seeds and changes it as the input says: bytes put in another's place, put in, or cut out.
fn damaged(seeds: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    let Some((first, edits)) = input.split_first() else { return Vec::new() };
    let mut bytes = seeds[usize::from(*first) % seeds.len()].clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(edit[1]) * (bytes.len() + 1) / 256;
        match edit[0] % 4 {
            0 | 1 if at < bytes.len() => bytes[at] = edit[2],
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, edit[2]),
        }
    }
    bytes
}

macro_rules! never_panics {
    ($($name:ident: $type:ty, $values:expr;)*) => {$(
        #[test]
        fn $name() {
            let seeds = seeds($values);
            bolero::check!().with_test_time(TIME).for_each(|input: &[u8]| {
                feed::<$type>(input);
                feed::<$type>(&damaged(&seeds, input));
            });
        }
    )*};
}

never_panics! {
    no_bytes_harm_the_decoder_of_messages_about_a_slot: kv::Message,
        strategy::message(Span::WIDEST, strategy::config(Span::WIDEST));
    no_bytes_harm_the_decoder_of_log_records: kv::Entry, strategy::entry();
    no_bytes_harm_the_decoder_of_requests: kv::Request, strategy::request();
    no_bytes_harm_the_decoder_of_registers: kv::Register, strategy::register(Span::WIDEST);
    no_bytes_harm_the_decoder_of_messages_about_the_ring: ring::Message, strategy::ring_message();
    no_bytes_harm_the_decoder_of_machines: Peer, strategy::peer();
}
