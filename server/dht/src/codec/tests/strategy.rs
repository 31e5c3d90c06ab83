//! Values of every kind, within their bounds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use crate::codec::*;
use crate::kv::limits::{KEYS_MAX, OWNER_MAX, SEQ_MAX};
use crate::kv::register::{Outcome, Remembered};
use crate::kv::*;
use crate::ring::{self, Hop, Place};
use crate::{NodeId, Peer, SEATS_MAX};

/// How wild numbers may be: up to their bounds, or so that honest nodes can go on above them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) counter: u32,
    pub(crate) number: u64,
}

impl Span {
    pub(crate) const WIDEST: Self = Self { counter: COUNTER_MAX, number: SEQ_MAX };
}

/// Few nodes, so that most of what they say is about each other.
pub(crate) fn node() -> impl Strategy<Value = NodeId> + Clone {
    prop_oneof![8 => (0..6_u64).prop_map(NodeId::from), 1 => any::<u128>().prop_map(NodeId)]
}

/// Small numbers mean something to a slot that has just begun; the others are at the edges.
fn number(highest: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![6 => 0..8_u64, 1 => 0..=highest, 1 => Just(highest)]
}

pub(crate) fn ballot(span: Span) -> impl Strategy<Value = Ballot> + Clone {
    let counter = prop_oneof![6 => 0..6_u32, 1 => 0..=span.counter, 1 => Just(span.counter)];
    (counter, node()).prop_map(|(counter, node)| Ballot { counter, node })
}

pub(crate) fn version(span: Span) -> impl Strategy<Value = Version> + Clone {
    (ballot(span), number(span.number)).prop_map(|(ballot, seq)| Version { ballot, seq })
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    prop_oneof![8 => prop_oneof![Just(b"k".to_vec()), Just(b"l".to_vec())], 1 => vec(any::<u8>(), 0..=64)]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..8), 1 => vec(any::<u8>(), 0..300)]
}

fn ttl() -> impl Strategy<Value = Duration> {
    (100..86_400_000_u64).prop_map(Duration::from_millis)
}

fn member(span: Span) -> impl Strategy<Value = Member> {
    (node(), version(span)).prop_map(|(node, since)| Member { node, since })
}

fn side(span: Span, least: usize) -> impl Strategy<Value = Vec<Member>> {
    vec(member(span), least..5).prop_map(|mut members| {
        members.sort_by_key(|member| member.node);
        members.dedup_by_key(|member| member.node);
        members
    })
}

pub(crate) fn config(span: Span) -> BoxedStrategy<Config> {
    let sides = prop_oneof![
        Just((None, None)),
        side(span, 1).prop_map(|side| (Some(side), None)),
        side(span, 1).prop_map(|side| (None, Some(side))),
    ];
    let made = (version(span), side(span, 1), sides).prop_map(|(version, old, (new, leaving))| {
        let mut config = Config { version, old, new, leaving };
        let sides = [Some(&mut config.old), config.new.as_mut(), config.leaving.as_mut()];
        sides.into_iter().flatten().flatten().for_each(|member| member.since = member.since.min(version));
        config
    });
    prop_oneof![1 => Just(Config::default()), 8 => made].boxed()
}

fn lease(span: Span) -> impl Strategy<Value = Lease> {
    let made = (vec(any::<u8>(), 0..=OWNER_MAX), any::<u64>(), ttl(), number(span.number));
    made.prop_map(|(owner, nonce, ttl, token)| Lease { owner, nonce, ttl, token })
}

fn remembered(span: Span) -> impl Strategy<Value = Remembered> {
    let outcome = prop_oneof![
        Just(Outcome::Done),
        any::<bool>().prop_map(Outcome::Found),
        number(span.number).prop_map(Outcome::Granted),
        Just(Outcome::Conflict),
        Just(Outcome::Held),
        Just(Outcome::Expired),
        Just(Outcome::StaleFence),
    ];
    (op(), outcome).prop_map(|(op, outcome)| Remembered { op, outcome })
}

fn op() -> impl Strategy<Value = OpId> {
    (0..4_u64, 0..4_u64).prop_map(|(client, number)| OpId { client, number })
}

pub(crate) fn register(span: Span) -> BoxedStrategy<Register> {
    let fences = btree_map(key(), number(span.number), 0..3);
    let made = (of(bytes()), btree_set(bytes(), 0..4), of(lease(span)), fences, vec(remembered(span), 0..4));
    made.prop_map(|(value, set, lease, fences, recent)| Register { value, set, lease, fences, recent }).boxed()
}

fn digest() -> impl Strategy<Value = Digest> {
    (prop_oneof![8 => 0..4_u64, 1 => Just(KEYS_MAX)], any::<u64>()).prop_map(|(keys, hash)| Digest { keys, hash })
}

fn report(span: Span, config: BoxedStrategy<Config>) -> impl Strategy<Value = Report> {
    let made = (config, any::<bool>(), of(version(span)), version(span), number(span.number), digest());
    made.prop_map(|(config, chosen, tenure, mark, seq, digest)| Report { config, chosen, tenure, mark, seq, digest })
}

/// A version that a leader of that ballot may write, as the case may be.
fn not_after(ballot: Ballot, version: Version) -> Version {
    Version { ballot: version.ballot.min(ballot), ..version }
}

/// Any message about a slot, with configurations from the given ones.
pub(crate) fn message(span: Span, config: BoxedStrategy<Config>) -> BoxedStrategy<Message> {
    let ballot = move || ballot(span);
    let some_version = move || version(span);
    let write = || {
        (ballot(), key(), some_version()).prop_map(|(ballot, key, version)| (ballot, key, not_after(ballot, version)))
    };
    let registers = move |ballot: Ballot| {
        let one = (key(), version(span), register(span));
        vec(one.prop_map(move |(key, version, held)| (key, not_after(ballot, version), Arc::new(held))), 0..3)
    };
    let held = ballot().prop_flat_map(move |ballot| (Just(ballot), of(some_version()), of(key()), registers(ballot)));
    let versions = move |ballot: Ballot| {
        vec((key(), version(span)).prop_map(move |(key, version)| (key, not_after(ballot, version))), 0..3)
    };
    let listed = ballot().prop_flat_map(move |ballot| (Just(ballot), versions(ballot)));
    prop_oneof![
        (ballot(), version(span), of(ballot())).prop_map(|(ballot, config, instead_of)| Message::Prepare {
            ballot,
            config,
            instead_of
        }),
        (ballot(), report(span, config.clone()))
            .prop_map(|(ballot, report)| Message::Promise { ballot, report: Box::new(report) }),
        (ballot(), of(key())).prop_map(|(ballot, after)| Message::Fetch { ballot, after }),
        (held, any::<bool>()).prop_map(|((ballot, tenure, after, registers), more)| {
            Message::Held { ballot, tenure, after, registers, more }
        }),
        (ballot(), ballot(), config.clone(), any::<bool>())
            .prop_map(|(ballot, promised, config, chosen)| Message::Nack { ballot, promised, config, chosen }),
        (write(), register(span), some_version()).prop_map(|((ballot, key, version), register, config)| {
            let (register, config) = (Arc::new(register), not_after(ballot, config));
            Message::Accept { ballot, key, version, register, config }
        }),
        write().prop_map(|(ballot, key, version)| Message::Accepted { ballot, key, version }),
        (ballot(), key()).prop_map(|(ballot, key)| Message::Behind { ballot, key }),
        ballot().prop_map(|ballot| Message::Full { ballot }),
        (ballot(), config.clone()).prop_map(|(ballot, config)| {
            let ballot = ballot.max(config.version.ballot);
            Message::AcceptConfig { ballot, config }
        }),
        (ballot(), some_version()).prop_map(|(ballot, version)| Message::ConfigAccepted { ballot, version }),
        (ballot(), number(span.number)).prop_map(|(ballot, round)| Message::Confirm { ballot, round }),
        (ballot(), number(span.number), of(some_version()), any::<bool>(), of(digest()))
            .prop_map(|(ballot, round, known, full, digest)| Message::Confirmed { ballot, round, known, full, digest }),
        (ballot(), of(key())).prop_map(|(ballot, after)| Message::List { ballot, after }),
        (listed, of(key()), any::<bool>()).prop_map(|((ballot, versions), after, more)| Message::Listed {
            ballot,
            after,
            versions,
            more
        }),
        write().prop_map(|(ballot, key, version)| Message::Purge { ballot, key, version }),
        ballot().prop_map(|ballot| Message::Succeed { ballot }),
        config.prop_map(|config| Message::Learn { config }),
    ]
    .boxed()
}

pub(crate) fn entry() -> BoxedStrategy<Entry> {
    let span = Span::WIDEST;
    prop_oneof![
        ballot(span).prop_map(Entry::Promise),
        (key(), version(span), register(span)).prop_map(|(key, version, register)| Entry::Accept {
            key,
            version,
            register: Arc::new(register)
        }),
        (config(span), any::<bool>()).prop_map(|(config, chosen)| Entry::Config { config, chosen }),
        (key(), version(span)).prop_map(|(key, version)| Entry::Purge { key, version }),
        (key(), version(span)).prop_map(|(key, version)| Entry::Lost { key, version }),
    ]
    .boxed()
}

pub(crate) fn request() -> BoxedStrategy<Request> {
    let token = || number(SEQ_MAX);
    let fence = (key(), token()).prop_map(|(lease_key, token)| Fence { lease_key, token });
    let operation = prop_oneof![
        Just(Operation::Get),
        (bytes(), of(fence)).prop_map(|(value, fence)| Operation::Put { value, fence }),
        Just(Operation::Delete),
        (of(bytes()), of(bytes())).prop_map(|(expected, new)| Operation::CompareAndSwap { expected, new }),
        bytes().prop_map(Operation::Append),
        bytes().prop_map(Operation::Remove),
        bytes().prop_map(Operation::Contains),
        Just(Operation::List),
        (vec(any::<u8>(), 0..=OWNER_MAX), any::<u64>(), ttl()).prop_map(|(owner, nonce, ttl)| Operation::Acquire {
            owner,
            nonce,
            ttl
        }),
        token().prop_map(|token| Operation::Renew { token }),
        token().prop_map(|token| Operation::Release { token }),
    ];
    (key(), op(), operation).prop_map(|(key, op, operation)| Request { key, op, operation }).boxed()
}

pub(crate) fn peer() -> BoxedStrategy<Peer> {
    let address = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let made = (node(), number(NUMBER_MAX), address, 1..=SEATS_MAX, any::<bool>());
    made.prop_map(|(id, incarnation, address, seats, leaving)| Peer { id, incarnation, address, seats, leaving })
        .boxed()
}

fn place() -> BoxedStrategy<Place> {
    let pick = |(peer, seat): (Peer, prop::sample::Index)| {
        let points: Vec<_> = peer.points().collect();
        Place { point: *seat.get(&points), peer }
    };
    (peer(), any::<prop::sample::Index>()).prop_map(pick).boxed()
}

pub(crate) fn ring_message() -> BoxedStrategy<ring::Message> {
    use ring::Message;
    let point = || any::<u64>().prop_map(crate::Point::new);
    let peers = || vec(peer(), 0..4);
    let hop = prop_oneof![
        peers().prop_map(Hop::Found),
        (peers(), peers()).prop_map(|(before, beyond)| Hop::Nearer { before, beyond }),
        Just(Hop::Outside)
    ];
    prop_oneof![
        (place(), point(), any::<u64>(), any::<u64>()).prop_map(|(from, to, number, known)| Message::Ask {
            from,
            to,
            number,
            known
        }),
        (place(), any::<u64>(), of(place()), of(peers())).prop_map(|(from, number, predecessor, successors)| {
            Message::Tell { from, number, predecessor, successors }
        }),
        (peer(), peer()).prop_map(|(from, peer)| Message::Introduce { from, peer }),
        (peer(), any::<u64>(), point()).prop_map(|(from, number, target)| Message::Step { from, number, target }),
        (peer(), any::<u64>(), hop).prop_map(|(from, number, hop)| Message::Stepped { from, number, hop }),
        peer().prop_map(|from| Message::Greet { from }),
        (peer(), peers()).prop_map(|(from, peers)| Message::Greeted { from, peers }),
        peer().prop_map(|from| Message::Farewell { from }),
    ]
    .boxed()
}
