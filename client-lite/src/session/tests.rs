use super::*;
use crate::target::Target;
use proptest::prelude::*;
use specter_wire::codec::PREFIX_BYTES;
use specter_wire::id::NodeId;
use specter_wire::limits::CONTROL_FRAME_BYTES;
use specter_wire::link::{ClientFrame, Request};

const NODE: NodeId = NodeId([7; 16]);

fn tunnels(hostnames: &[Option<&str>]) -> Arc<Vec<Tunnel>> {
    let tunnel = |hostname: &Option<&str>| {
        let mut tunnel = Tunnel::new(Target::parse("tcp://h:1").expect("a target"));
        tunnel.hostname = hostname.map(|name| Hostname::parse(name).expect(name));
        tunnel
    };
    Arc::new(hostnames.iter().map(tunnel).collect())
}

/// A session that was greeted by a node that knows it.
fn greeted(hostnames: &[Option<&str>]) -> Session {
    let mut session = Session::new(7, tunnels(hostnames));
    assert_eq!(session.poll(), Some(Action::Send(1, Message::Hello)));
    session.received(&welcome(1, true)).expect("allowed");
    assert_eq!(session.poll(), Some(Action::Greeted(NODE)));
    session.serve(true, false).expect("allowed");
    session
}

fn welcome(id: u32, registered: bool) -> NodeFrame<'static> {
    NodeFrame { id, reply: Reply::Welcome { node: NODE, registered, work_bits: 3, apex: "example.com", port: 443 } }
}

fn hostnames<'a>(id: u32, names: &[&'a str], more: bool) -> NodeFrame<'a> {
    NodeFrame { id, reply: Reply::Hostnames { names: names.iter().copied().collect(), more } }
}

fn outcomes(id: u32, codes: &[Option<ErrorCode>]) -> NodeFrame<'static> {
    NodeFrame { id, reply: Reply::Outcomes { outcomes: codes.iter().copied().collect() } }
}

/// What is to be done, but for the word that all is done.
fn drain(session: &mut Session) -> Vec<Action> {
    let actions = std::iter::from_fn(|| session.poll());
    actions.filter(|action| !matches!(action, Action::Ready | Action::Settled)).collect()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).expect(text)
}

#[test]
fn a_stranger_proves_registers_saves_names_itself_saves_and_publishes() {
    let mut session = Session::new(7, tunnels(&[None]));
    assert_eq!(drain(&mut session), [Action::Send(1, Message::Hello)]);
    session.received(&welcome(1, false)).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Greeted(NODE)]);
    session.serve(true, false).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Prove { bits: 3 }]);
    session.proven([1; 32], [2; 64], 9);
    let register = Message::Register { public_key: [1; 32], signature: [2; 64], counter: 9 };
    assert_eq!(drain(&mut session), [Action::Send(2, register)]);
    session.received(&NodeFrame { id: 2, reply: Reply::Certificate { pem: "PEM" } }).expect("allowed");
    assert_eq!(drain(&mut session), [Action::SaveCertificate("PEM".to_owned())]);
    session.saved();
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Hostnames { after: String::new() })]);
    session.received(&hostnames(3, &[], false)).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Send(4, Message::Claim { count: 1 })]);
    session.received(&hostnames(4, &["a-b"], false)).expect("allowed");
    assert_eq!(drain(&mut session), [Action::SaveHostnames(vec![(0, name("a-b"))])]);
    session.saved();
    assert_eq!(drain(&mut session), [Action::Send(5, Message::Publish { tunnels: vec![0] })]);
    session.received(&outcomes(5, &[None])).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Published(0)]);
    assert_eq!(session.owed(), None);
}

#[test]
fn a_complete_client_publishes_right_after_the_greeting() {
    let mut session = greeted(&[Some("a-b"), Some("c-d.example.com"), Some("own.other.org")]);
    assert_eq!(drain(&mut session), [Action::Send(2, Message::Publish { tunnels: vec![0, 1, 2] })]);
    let mut buffer = vec![0; PREFIX_BYTES + CONTROL_FRAME_BYTES];
    let frame = session.encode(2, &Message::Publish { tunnels: vec![0, 1, 2] }, &mut buffer).expect("fits");
    let ClientFrame { id: 2, request: Request::Publish { tunnels } } =
        specter_wire::codec::decode(&frame[PREFIX_BYTES..]).expect("a frame")
    else {
        panic!("another request");
    };
    let names: Vec<&str> = tunnels.iter().map(|tunnel| tunnel.hostname).collect();
    assert_eq!(names, ["a-b", "c-d", "own.other.org"]);
}

#[test]
fn owned_labels_that_nothing_uses_come_before_new_names() {
    let mut session = greeted(&[None, Some("used"), None, None]);
    drain(&mut session);
    session.received(&hostnames(2, &["custom.org", "free-1", "used"], true)).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Hostnames { after: "used".to_owned() })]);
    session.received(&hostnames(3, &["zfree-2"], false)).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Send(4, Message::Claim { count: 1 })]);
    session.received(&hostnames(4, &["new-1"], false)).expect("allowed");
    let names = vec![(0, name("free-1")), (2, name("zfree-2")), (3, name("new-1"))];
    assert_eq!(drain(&mut session), [Action::SaveHostnames(names)]);
}

#[test]
fn a_hundred_and_thirty_claims_and_publishes_do_not_wait_for_each_other() {
    let mut session = greeted(&[None; 130]);
    drain(&mut session);
    session.received(&hostnames(2, &[], false)).expect("allowed");
    let claims = [64, 64, 2].map(|count| Message::Claim { count });
    let sent: Vec<Action> = (3..).zip(claims).map(|(id, claim)| Action::Send(id, claim)).collect();
    assert_eq!(drain(&mut session), sent);
    let names: Vec<String> = (0..130).map(|index| format!("n-{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (id, batch) in (3..).zip(names.chunks(64)) {
        session.received(&hostnames(id, batch, false)).expect("allowed");
    }
    drain(&mut session);
    session.saved();
    let batches: Vec<usize> = drain(&mut session)
        .into_iter()
        .map(|action| match action {
            Action::Send(_, Message::Publish { tunnels }) => tunnels.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(batches, [64, 64, 2]);
}

#[test]
fn a_refused_claim_costs_only_the_tunnels_without_a_name() {
    let mut session = greeted(&[Some("a-b"), None]);
    drain(&mut session);
    session.received(&hostnames(2, &[], false)).expect("allowed");
    drain(&mut session);
    session.received(&NodeFrame { id: 3, reply: Reply::Refused { code: ErrorCode::Limit } }).expect("allowed");
    assert_eq!(
        drain(&mut session),
        [
            Action::Refused { tunnel: 1, code: ErrorCode::Limit, named: false },
            Action::RetryLater,
            Action::Send(4, Message::Publish { tunnels: vec![0] }),
        ]
    );
    session.received(&outcomes(4, &[None])).expect("allowed");
    drain(&mut session);
    session.retry();
    assert_eq!(drain(&mut session), [Action::Send(5, Message::Hostnames { after: String::new() })]);
}

#[test]
fn only_refusals_that_time_may_mend_are_tried_again() {
    let mut session = greeted(&[Some("a"), Some("b"), Some("c")]);
    drain(&mut session);
    let codes = [Some(ErrorCode::Unavailable), Some(ErrorCode::NotOwner), None];
    session.received(&outcomes(2, &codes)).expect("allowed");
    assert_eq!(drain(&mut session).len(), 4);
    session.retry();
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Publish { tunnels: vec![0] })]);
    session.received(&NodeFrame { id: 3, reply: Reply::Refused { code: ErrorCode::Internal } }).expect("allowed");
    assert!(drain(&mut session).contains(&Action::RetryLater));
}

#[test]
fn pings_are_answered_and_draining_is_told_at_any_time() {
    let mut session = Session::new(7, tunnels(&[]));
    drain(&mut session);
    session.received(&NodeFrame { id: 0, reply: Reply::Ping { nonce: 5 } }).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Send(2, Message::Pong { nonce: 5 })]);
    session.received(&welcome(1, true)).expect("the pong is no request that is answered");
    session.received(&NodeFrame { id: 0, reply: Reply::Draining }).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Greeted(NODE), Action::Drain]);
}

#[test]
fn a_renewal_that_fails_stops_nothing() {
    let mut session = Session::new(7, tunnels(&[Some("a")]));
    session.received(&welcome(1, true)).expect("allowed");
    session.serve(true, true).expect("allowed");
    drain(&mut session).pop().filter(|last| *last == Action::Send(2, Message::Renew)).expect("a renewal");
    session.received(&NodeFrame { id: 2, reply: Reply::Refused { code: ErrorCode::Unavailable } }).expect("allowed");
    assert_eq!(
        drain(&mut session),
        [Action::NotRenewed(ErrorCode::Unavailable), Action::Send(3, Message::Publish { tunnels: vec![0] })]
    );
    session.received(&outcomes(3, &[None])).expect("allowed");
    session.renew();
    session.received(&NodeFrame { id: 4, reply: Reply::Certificate { pem: "NEW" } }).expect("allowed");
    assert!(drain(&mut session).contains(&Action::SaveCertificate("NEW".to_owned())));
    session.saved();
    assert_eq!(drain(&mut session), []);
}

#[test]
fn a_node_that_asks_for_too_much_is_left() {
    let mut session = Session::new(7, tunnels(&[]));
    let welcome = Reply::Welcome { node: NODE, registered: false, work_bits: WORK_BITS_MAX + 1, apex: "h", port: 1 };
    session.received(&NodeFrame { id: 1, reply: welcome }).expect("allowed");
    assert_eq!(session.serve(true, false), Err(SessionError::TooMuchWork(WORK_BITS_MAX + 1)));
}

/// Replies of every kind, sensible or not.
fn reply() -> impl Strategy<Value = Reply<'static>> {
    let names = prop::collection::vec(prop_oneof![Just("a-b"), Just("c.d"), Just("_"), Just("x")], 0..5);
    prop_oneof![
        any::<(bool, u8, u16)>().prop_map(|(registered, work_bits, port)| Reply::Welcome {
            node: NODE,
            registered,
            work_bits,
            apex: "example.com",
            port
        }),
        Just(Reply::Certificate { pem: "PEM" }),
        (names, any::<bool>()).prop_map(|(names, more)| Reply::Hostnames { names: names.into_iter().collect(), more }),
        prop::collection::vec(prop::option::of(prop::sample::select(&ErrorCode::ALL[..])), 0..5)
            .prop_map(|codes| Reply::Outcomes { outcomes: codes.into_iter().collect() }),
        prop::sample::select(&ErrorCode::ALL[..]).prop_map(|code| Reply::Refused { code }),
        any::<u64>().prop_map(|nonce| Reply::Ping { nonce }),
        Just(Reply::Draining),
        Just(Reply::Neighbours { nodes: Default::default() }),
    ]
}

#[test]
fn a_link_that_does_not_lead_publishes_what_has_a_name_and_the_rest_when_it_has_one() {
    let mut session = Session::new(7, tunnels(&[Some("a-b"), None]));
    session.received(&welcome(1, true)).expect("allowed");
    session.serve(false, true).expect("allowed");
    assert_eq!(drain(&mut session).pop(), Some(Action::Send(2, Message::Publish { tunnels: vec![0] })));
    session.received(&outcomes(2, &[None])).expect("allowed");
    assert_eq!(session.poll(), Some(Action::Published(0)));
    assert_eq!(session.poll(), Some(Action::Settled));
    session.renew();
    session.retry();
    assert_eq!(drain(&mut session), []);
    session.learn(tunnels(&[Some("a-b"), Some("c-d")]));
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Publish { tunnels: vec![1] })]);
}

#[test]
fn a_link_that_takes_the_lead_asks_for_the_names_that_are_missing() {
    let mut session = Session::new(7, tunnels(&[Some("a-b"), None]));
    session.received(&welcome(1, true)).expect("allowed");
    session.serve(false, false).expect("allowed");
    drain(&mut session);
    session.lead();
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Hostnames { after: String::new() })]);
}

#[test]
fn a_link_that_does_not_lead_never_registers() {
    let mut session = Session::new(7, tunnels(&[Some("a-b")]));
    session.received(&welcome(1, false)).expect("allowed");
    assert_eq!(session.serve(false, false), Err(SessionError::Stranger));
}

#[test]
fn a_link_that_is_left_takes_back_what_it_published() {
    let mut session = greeted(&[Some("a-b"), Some("c-d")]);
    drain(&mut session);
    session.received(&outcomes(2, &[None, Some(ErrorCode::NotOwner)])).expect("allowed");
    drain(&mut session);
    session.leave();
    assert_eq!(drain(&mut session), [Action::Send(3, Message::Unpublish { tunnels: vec![0] })]);
    let mut buffer = vec![0; PREFIX_BYTES + CONTROL_FRAME_BYTES];
    let frame = session.encode(3, &Message::Unpublish { tunnels: vec![0] }, &mut buffer).expect("fits");
    let ClientFrame { request: Request::Unpublish { hostnames }, .. } =
        specter_wire::codec::decode(&frame[PREFIX_BYTES..]).expect("a frame")
    else {
        panic!("another request");
    };
    assert_eq!(hostnames, ["a-b"]);
    session.received(&outcomes(3, &[None])).expect("allowed");
    assert_eq!(drain(&mut session), [Action::Left]);
}

proptest! {
    #[test]
    fn no_node_makes_a_session_panic_or_publish_what_was_not_saved(
        replies in prop::collection::vec((reply(), any::<bool>()), 0..40),
        renew_due: bool,
        leads: bool,
        named in prop::collection::vec(any::<bool>(), 0..4),
    ) {
        let hostnames: Vec<Option<&str>> = named.iter().map(|named| named.then_some("named")).collect();
        let mut session = Session::new(7, tunnels(&hostnames));
        let mut unsaved = Vec::new();
        for (reply, retry) in replies {
            while let Some(action) = session.poll() {
                match action {
                    Action::Greeted(_) if session.serve(leads, renew_due).is_err() => return Ok(()),
                    Action::Prove { .. } => session.proven([0; 32], [0; 64], 0),
                    Action::SaveHostnames(names) => {
                        unsaved = names;
                        if retry {
                            unsaved.clear();
                            session.saved();
                        }
                    }
                    Action::SaveCertificate(_) => session.saved(),
                    Action::Send(_, Message::Publish { tunnels }) => {
                        prop_assert!(unsaved.iter().all(|(index, _)| !tunnels.contains(index)));
                    }
                    _ => {}
                }
            }
            if retry {
                session.retry();
                session.lead();
            }
            let unasked = matches!(reply, Reply::Ping { .. } | Reply::Draining | Reply::Neighbours { .. });
            let id = if unasked { 0 } else { session.pending.front().map_or(99, |(id, _)| *id) };
            if session.received(&NodeFrame { id, reply }).is_err() {
                break;
            }
        }
    }
}
