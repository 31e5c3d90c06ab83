//! The bytes of every message, so that a change of the protocol is seen as one.

#![allow(missing_docs)]

use proptest::prelude::*;
use specter_wire::{
    address::Address,
    codec::{FrameError, body_length, decode, encode},
    error::ErrorCode,
    id::NodeId,
    limits::{BATCH, CONTROL_FRAME_BYTES, STREAM_FRAME_BYTES},
    link::{Carries, ClientFrame, HostHeader, Neighbour, NodeFrame, Reply, Request, Tunnel},
    stream::{StreamHeader, StreamKind, status},
    version::{ALPN_CONNECT, ALPN_LINK, ALPN_NODE, ALPN_RELAY, PROTOCOL},
};
use std::{fmt::Debug, net::SocketAddr};

#[track_caller]
fn golden<T: serde::Serialize>(value: &T, hex: &str) {
    let mut buffer = [0; CONTROL_FRAME_BYTES + 2];
    let frame = encode(value, &mut buffer).expect("fits");
    let seen: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(seen, hex);
}

#[track_caller]
fn round_trip<'a, T>(value: &T, buffer: &'a mut [u8])
where
    T: serde::Serialize + serde::Deserialize<'a> + PartialEq + Debug,
{
    let frame = encode(value, buffer).expect("fits");
    let length = body_length([frame[0], frame[1]], CONTROL_FRAME_BYTES).expect("bounded");
    assert_eq!(length + 2, frame.len());
    assert_eq!(&decode::<T>(&frame[2..]).expect("decodes"), value);
}

fn tunnel(hostname: &str) -> Tunnel<'_> {
    Tunnel { hostname, carries: Carries::Http, host: HostHeader::Fixed("127.0.0.1:80"), header_timeout_ms: 15_000 }
}

#[test]
fn requests_have_these_bytes() {
    let mut tunnels = heapless::Vec::new();
    tunnels.push(tunnel("a-b")).expect("room");
    let mut hostnames = heapless::Vec::new();
    hostnames.push("a-b").expect("room");
    let frames = [
        (Request::Hello { instance: 300, agent: "c/1" }, "08000100ac0203632f31"),
        (Request::Register { public_key: &[1, 2], signature: &[3], counter: 5 }, "08000101020102010305"),
        (Request::Renew, "02000102"),
        (Request::Hostnames { after: "x" }, "040001030178"),
        (Request::Claim { count: 200 }, "03000104c8"),
        (Request::Publish { tunnels }, "180001050103612d6201010c3132372e302e302e313a38309875"),
        (Request::Unpublish { hostnames: hostnames.clone() }, "070001060103612d62"),
        (Request::Release { hostnames }, "070001070103612d62"),
        (Request::Pong { nonce: 9 }, "0300010809"),
    ];
    for (request, hex) in frames {
        let frame = ClientFrame { id: 1, request };
        golden(&frame, hex);
        round_trip(&frame, &mut [0; 512]);
    }
}

#[test]
fn replies_have_these_bytes() {
    let mut names = heapless::Vec::new();
    names.push("a-b").expect("room");
    let mut nodes = heapless::Vec::new();
    let address: SocketAddr = "192.0.2.1:443".parse().expect("address");
    nodes.push(Neighbour { node: NodeId([0x11; 16]), address: address.into() }).expect("room");
    let mut outcomes = heapless::Vec::new();
    outcomes.extend([None, Some(ErrorCode::NotOwner)]);
    let frames = [
        (
            Reply::Welcome { node: NodeId([0xee; 16]), registered: true, work_bits: 18, apex: "localhost", port: 8443 },
            "20000700".to_owned() + &"ee".repeat(16) + "011209" + "6c6f63616c686f7374" + "fb41",
        ),
        (Reply::Certificate { pem: "-" }, "04000701012d".to_owned()),
        (Reply::Hostnames { names, more: false }, "080007020103612d6200".to_owned()),
        (Reply::Outcomes { outcomes }, "060007030200010c".to_owned()),
        (Reply::Refused { code: ErrorCode::Limit }, "0300070408".to_owned()),
        (Reply::Ping { nonce: 1 }, "0300070501".to_owned()),
        (Reply::Draining, "02000706".to_owned()),
        (Reply::Neighbours { nodes }, "1a000707".to_owned() + "01" + &"11".repeat(16) + "00c0000201bb03"),
    ];
    for (reply, hex) in frames {
        let frame = NodeFrame { id: 7, reply };
        golden(&frame, &hex);
        round_trip(&frame, &mut [0; 512]);
    }
}

#[test]
fn a_stream_header_has_these_bytes() {
    let visitor: SocketAddr = "192.0.2.1:443".parse().expect("address");
    let header = StreamHeader { kind: StreamKind::Http1, hostname: "a-b", visitor: visitor.into() };
    golden(&header, "0c000103612d6200c0000201bb03");
    let kinds = [StreamKind::Raw, StreamKind::Http1, StreamKind::Http2, StreamKind::Life];
    for (kind, number) in kinds.into_iter().zip(0..) {
        golden(&StreamHeader { kind, ..header }, &format!("0c00{number:02x}03612d6200c0000201bb03"));
    }
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:443".parse().expect("address");
    assert_eq!(Address::from(mapped), header.visitor);
    assert_eq!(SocketAddr::from(header.visitor), visitor);
}

#[test]
fn the_largest_batch_fits_its_frame() {
    let name = ["a".repeat(63).as_str(), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].join(".");
    let authority = "h".repeat(specter_wire::limits::AUTHORITY_BYTES);
    let tunnel = Tunnel {
        hostname: &name,
        carries: Carries::Either,
        host: HostHeader::Fixed(&authority),
        header_timeout_ms: u32::MAX,
    };
    let tunnels = heapless::Vec::from_iter([tunnel; BATCH]);
    let frame = ClientFrame { id: u32::MAX, request: Request::Publish { tunnels } };
    let mut buffer = [0; CONTROL_FRAME_BYTES + 2];
    round_trip(&frame, &mut buffer);
}

#[test]
fn every_alpn_name_carries_the_protocol_version() {
    let ending = format!("/{PROTOCOL}");
    for name in [ALPN_LINK, ALPN_CONNECT, ALPN_NODE, ALPN_RELAY] {
        assert!(name.ends_with(ending.as_bytes()));
    }
}

#[test]
fn a_length_is_judged_before_the_body() {
    assert_eq!(body_length([0xff, 0xff], STREAM_FRAME_BYTES), Err(FrameError::Length(0xffff)));
    assert_eq!(body_length([0, 0], STREAM_FRAME_BYTES), Err(FrameError::Length(0)));
    assert_eq!(decode::<u8>(&[1, 2]), Err(FrameError::Body));
}

#[test]
fn a_status_byte_is_an_answer_a_refusal_or_unknown() {
    assert_eq!(status(0), Ok(Ok(())));
    assert_eq!(status(3), Ok(Err(ErrorCode::TargetRefused)));
    assert!(status(200).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<ClientFrame<'_>>(&body);
        let _ = decode::<NodeFrame<'_>>(&body);
        let _ = decode::<StreamHeader<'_>>(&body);
    }

    #[test]
    fn what_decodes_encodes_to_no_more_bytes(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(frame) = decode::<ClientFrame<'_>>(&body) {
            let mut buffer = [0; CONTROL_FRAME_BYTES + 2];
            let again = encode(&frame, &mut buffer).expect("fits");
            prop_assert!(again.len() <= body.len() + 2);
        }
    }
}
