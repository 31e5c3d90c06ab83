//! What a decoder allocates, counted by the allocator of this whole test program; hence one test, alone in its file.

use std::alloc::System;
use std::time::Duration;

use serde::de::DeserializeOwned;
use specter_dht::codec::{self, Bounded, FRAME_BYTES_MAX};
use specter_dht::{Peer, kv, ring};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a decoder may take whatever it is given.
const BASE_BYTES: usize = 64 << 10;
/// Bytes of memory for each byte of values, children and keys: they are copied, into lists that grow by doubling.
const CONTENT_EXPANSION: usize = 4;
/// Bytes of memory for each byte of anything. The densest lists set it, and need 52: an empty child is one byte on its
/// way and 24 bytes in memory, a whole register nine bytes and some four hundred.
const EXPANSION: usize = 64;

fn assert_frugal<T: DeserializeOwned + Bounded>(what: &str, bytes: &[u8], expansion: usize) {
    let region = Region::new(ALLOCATOR);
    let value = codec::decode::<T>(bytes);
    let count = region.change().bytes_allocated;
    drop(value);
    let allowed = expansion * bytes.len() + BASE_BYTES;
    assert!(count <= allowed, "{what}: {count} bytes allocated for {} bytes, more than {allowed}", bytes.len());
}

fn all(what: &str, bytes: &[u8], expansion: usize) {
    assert_frugal::<kv::Message>(what, bytes, expansion);
    assert_frugal::<kv::Entry>(what, bytes, expansion);
    assert_frugal::<kv::Request>(what, bytes, expansion);
    assert_frugal::<kv::Register>(what, bytes, expansion);
    assert_frugal::<ring::Message>(what, bytes, expansion);
    assert_frugal::<Peer>(what, bytes, expansion);
}

fn dense(what: &str, bytes: &[u8]) {
    all(what, bytes, EXPANSION);
}

fn varint(number: usize) -> Vec<u8> {
    postcard::to_allocvec(&number).expect("memory is enough")
}

/// A frame as long as may be: `head`, then a list of as many elements as fit, each made of its number.
fn full_frame(head: &[u8], element: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let room = FRAME_BYTES_MAX - head.len() - 4;
    let mut body = Vec::new();
    let mut count = 0;
    loop {
        let next = element(count);
        if body.len() + next.len() > room {
            return [head, &varint(count), &body].concat();
        }
        body.extend(next);
        count += 1;
    }
}

#[test]
fn a_decoder_allocates_in_proportion_to_what_it_is_given() {
    // Contents: they cost what they weigh.
    let value = vec![7; kv::limits::VALUE_MAX];
    let put = kv::Operation::Put { value: value.clone(), fence: None };
    let request = kv::Request { key: b"k".to_vec(), op: kv::OpId { client: 1, number: 1 }, operation: put };
    let mut bytes = Vec::new();
    codec::encode(&request, &mut bytes).unwrap();
    assert_frugal::<kv::Request>("a long value", &bytes, CONTENT_EXPANSION);
    let mut register = kv::Register::default();
    for number in 0..400_u16 {
        let child = [&number.to_le_bytes(), &value[..500]].concat();
        register.apply(&kv::Operation::Append(child), 1);
    }
    bytes.clear();
    codec::encode(&register, &mut bytes).unwrap();
    assert_frugal::<kv::Register>("long children", &bytes, CONTENT_EXPANSION);

    // Lists that say they are longer than what follows, of every kind: with nothing, little or much behind, which is no
    // element of any list.
    for claim in [3, 20_000, 1 << 20, usize::MAX >> 4, usize::MAX] {
        for behind in [0, 3, 20_000] {
            for head in 0..20_u8 {
                for skipped in 0..40 {
                    let bytes = [vec![head], vec![0; skipped], varint(claim), vec![0xff; behind]].concat();
                    all("a list that lies", &bytes, CONTENT_EXPANSION);
                }
            }
        }
    }

    // The densest of everything, whether or not it is believed in the end.
    let number = |number: usize| u16::try_from(number % 65_536).unwrap().to_le_bytes();
    let child = |count: usize| [vec![2], number(count).to_vec()].concat();
    dense("empty children that a register remembers", &full_frame(&[0, 0, 0, 0, 1, 1, 1, 3], |_| vec![0]));
    dense("clients that a register remembers", &full_frame(&[0, 0, 0, 0], |_| vec![0, 0, 0]));
    dense("empty children", &full_frame(&[0], |_| vec![0]));
    dense("children of two bytes", &full_frame(&[0], child));
    dense("fences", &full_frame(&[0, 0, 0], |count| [child(count), vec![0]].concat()));
    dense("members", &full_frame(&[2, 0, 0, 0], |_| vec![0, 0, 0, 0]));
    let register = |count| [child(count), vec![0; 3 + 5]].concat();
    dense("empty registers", &full_frame(&[3, 0, 0, 0, 0], register));
    let peer = |_| vec![0, 0, 0, 1, 2, 3, 4, 0, 1, 0];
    let greeted = [vec![6], peer(0)].concat();
    dense("machines", &full_frame(&greeted, peer));

    bolero::check!().with_test_time(Duration::from_secs(2)).for_each(|input: &[u8]| dense("bytes at random", input));
}
