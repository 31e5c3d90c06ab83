use super::known::KNOWN;
use super::*;
use proptest::prelude::*;
use specter_wire::address::Address;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes and their network, as far as links see them.
struct World {
    now: Instant,
    links: Links,
    /// Which node stands at an address, and how far off.
    nodes: BTreeMap<SocketAddr, (NodeId, Duration)>,
    down: BTreeSet<SocketAddr>,
    /// What the apex leads to.
    apex: Vec<SocketAddr>,
    open: BTreeMap<LinkNumber, SocketAddr>,
    serving: BTreeMap<LinkNumber, SocketAddr>,
    /// Silent dials, and when they are given up.
    silent: BTreeMap<LinkNumber, Instant>,
    decisions: Vec<Decision>,
    /// Whether nodes name each other.
    gossip: bool,
    /// Where no UDP gets through.
    blocked: BTreeSet<SocketAddr>,
    over_tcp: BTreeSet<LinkNumber>,
}

impl World {
    /// As many nodes as there are distances, in milliseconds; the apex leads to all of them.
    fn new(wanted: usize, rtts_ms: &[u64]) -> Self {
        let node =
            |(number, rtt_ms): (u8, &u64)| (address(number), (NodeId([number; 16]), Duration::from_millis(*rtt_ms)));
        let nodes: BTreeMap<_, _> = (1..).zip(rtts_ms).map(node).collect();
        Self {
            now: Instant::now(),
            links: Links::new((wanted, Transport::Auto), true, 7),
            apex: nodes.keys().copied().collect(),
            nodes,
            down: BTreeSet::new(),
            open: BTreeMap::new(),
            serving: BTreeMap::new(),
            silent: BTreeMap::new(),
            decisions: Vec::new(),
            gossip: true,
            blocked: BTreeSet::new(),
            over_tcp: BTreeSet::new(),
        }
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let named = |(address, (node, _)): (&SocketAddr, &(NodeId, Duration))| Neighbour {
            node: *node,
            address: Address::from(*address),
        };
        self.nodes.iter().map(named).take(16).collect()
    }

    /// Carries out what was decided, until there is nothing more at this moment.
    fn obey(&mut self) {
        while let Some(decision) = self.links.poll() {
            self.check();
            self.decisions.push(decision);
            match decision {
                Decision::LookUp => self.links.resolved(self.now, &self.apex),
                Decision::Dial { link, address, plan, .. } => {
                    self.open.insert(link, address);
                    let way = match (plan.udp && !self.blocked.contains(&address), plan.tcp_after) {
                        (true, _) => Some(Way::Udp),
                        (false, Some(_)) => Some(Way::Tcp),
                        (false, None) => None,
                    };
                    if way == Some(Way::Tcp) {
                        self.over_tcp.insert(link);
                    }
                    match (self.nodes.get(&address).filter(|_| !self.down.contains(&address)), way) {
                        (Some((node, rtt)), Some(way)) => self.links.welcomed(self.now, link, (*node, way), *rtt),
                        (None, _) | (_, None) => drop(self.silent.insert(link, self.now + Duration::from_secs(5))),
                    }
                }
                Decision::Serve(link) => {
                    self.serving.insert(link, self.open[&link]);
                    self.links.published(self.now, link);
                    if self.gossip {
                        self.links.heard(self.now, link, &self.neighbours());
                    }
                }
                Decision::Leave(link) | Decision::Close(link) => self.end(link),
            }
        }
        self.check();
    }

    fn end(&mut self, link: LinkNumber) {
        self.open.remove(&link);
        self.serving.remove(&link);
        self.over_tcp.remove(&link);
        self.silent.remove(&link);
        self.links.ended(self.now, link);
    }

    fn pass(&mut self, time: Duration) {
        self.links.decide(self.now);
        self.obey();
        let end = self.now + time;
        loop {
            let next = self.silent.values().copied().chain(self.links.wake_at()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let over: Vec<_> = self.silent.iter().filter(|(_, at)| **at <= self.now).map(|(link, _)| *link).collect();
            for link in over {
                self.end(link);
            }
            self.links.decide(self.now);
            self.obey();
        }
        self.now = end;
    }

    /// The node at an address dies.
    fn kill(&mut self, address: SocketAddr) {
        self.down.insert(address);
        let there: Vec<_> = self.serving.iter().filter(|(_, at)| **at == address).map(|(link, _)| *link).collect();
        for link in there {
            self.end(link);
        }
    }

    fn linked(&self) -> BTreeSet<SocketAddr> {
        self.serving.values().copied().collect()
    }

    fn dials(&self) -> usize {
        self.decisions.iter().filter(|decision| matches!(decision, Decision::Dial { .. })).count()
    }

    /// What holds at any time.
    fn check(&self) {
        let links = &self.links;
        // A link that goes back to UDP stands beside the one that it takes the place of.
        let returns = |open: &&Open| {
            let old = links.open.iter().find(|old| Some(old.link) == open.replaces);
            old.is_some_and(|old| old.node == open.node)
        };
        let apart = links.open.iter().filter(|open| open.is_serving() && !returns(open));
        let nodes: Vec<NodeId> = apart.filter_map(|open| open.node).collect();
        let serving = links.open.iter().filter(|open| open.is_serving()).count();
        let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
        assert_eq!(nodes.len(), distinct.len(), "two links to one node");
        assert!(serving <= links.wanted + 1, "more than one in change");
        let dialling = links.dialling();
        assert!(dialling <= links.wanted + HEDGES, "{dialling} at once");
        assert!(links.open.iter().filter(|open| open.is_leaving()).count() <= LEAVING);
        assert!(links.known.places().len() <= KNOWN);
        let addresses: BTreeSet<SocketAddr> = links.known.places().iter().map(|place| place.address).collect();
        assert_eq!(addresses.len(), links.known.places().len(), "an address stands in the table twice");
    }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 443))
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn links_come_up_on_as_many_nodes_as_wanted_or_as_there_are() {
    for (nodes, wanted) in [(1, 3), (2, 3), (3, 3), (5, 3), (5, 1), (9, 8)] {
        let mut world = World::new(wanted, &vec![20; nodes]);
        world.pass(Duration::from_secs(2));
        assert_eq!(world.linked().len(), wanted.min(nodes), "{wanted} of {nodes}");
        assert_eq!(world.dials(), wanted.min(nodes), "no dial was in vain: {:?}", world.decisions);
    }
}

#[test]
fn one_node_costs_one_link_and_nothing_more_for_hours() {
    let mut world = World::new(3, &[20]);
    world.pass(MINUTE);
    let before = world.decisions.len();
    world.pass(60 * MINUTE);
    let later = &world.decisions[before..];
    assert!(later.iter().all(|decision| *decision == Decision::LookUp) && later.len() <= 12, "{later:?}");
}

#[test]
fn before_there_is_an_identity_one_link_asks_for_it() {
    let mut world = World::new(3, &[20; 5]);
    world.links.ready = false;
    world.pass(10 * MINUTE);
    assert_eq!(world.linked().len(), 1);
    world.links.set_ready(world.now, true);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.linked().len(), 3);
}

#[test]
fn an_address_that_is_silent_costs_a_moment() {
    let mut world = World::new(1, &[20; 3]);
    world.down = [address(1), address(2)].into();
    world.pass(Duration::from_millis(501));
    assert_eq!(world.linked(), [address(3)].into());
}

#[test]
fn an_address_that_never_answers_is_seldom_tried_while_there_is_a_link() {
    let mut world = World::new(3, &[20, 20]);
    world.down = [address(2)].into();
    world.pass(60 * MINUTE);
    let before = world.dials();
    world.pass(60 * MINUTE);
    assert!((5..40).contains(&(world.dials() - before)), "{}", world.dials() - before);
    world.kill(address(1));
    world.pass(MINUTE);
    world.down.remove(&address(2));
    world.pass(MINUTE);
    assert_eq!(world.linked(), [address(2)].into());
}

#[test]
fn a_lost_link_is_replaced_at_once_by_a_node_that_has_none() {
    let mut world = World::new(3, &[20; 4]);
    world.pass(Duration::from_secs(1));
    let dead = *world.linked().first().expect("a link");
    world.kill(dead);
    world.pass(Duration::ZERO);
    assert_eq!(world.linked().len(), 3);
    assert!(!world.linked().contains(&dead));
}

#[test]
fn who_comes_back_alone_is_found_within_the_longest_delay() {
    let mut world = World::new(3, &[20; 3]);
    world.pass(MINUTE);
    for number in 1..=3 {
        world.kill(address(number));
    }
    world.apex = Vec::new();
    world.pass(60 * MINUTE);
    assert_eq!(world.linked().len(), 0);
    world.down.remove(&address(2));
    world.pass(Duration::from_secs(36));
    assert_eq!(world.linked(), [address(2)].into(), "an apex that leads nowhere does not matter");
}

#[test]
fn a_machine_that_woke_tries_everything_at_once() {
    let mut world = World::new(3, &[20; 3]);
    world.down = (1..=3).map(address).collect();
    world.pass(60 * MINUTE);
    world.down.clear();
    world.links.woke(world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.linked().len(), 3);
}

#[test]
fn a_node_that_drains_is_replaced_while_its_link_still_serves_and_left_alone_for_a_while() {
    let mut world = World::new(3, &[20; 4]);
    world.pass(MINUTE);
    let (link, draining) = world.serving.first_key_value().map(|(link, at)| (*link, *at)).expect("a link");
    world.links.draining(world.now, link);
    world.pass(Duration::ZERO);
    assert_eq!(world.serving.len(), 4, "the old link is still there");
    assert_eq!(world.links.serving(), 3);
    world.end(link);
    world.kill(*world.linked().first().expect("a link"));
    world.pass(Duration::from_secs(4));
    assert_eq!(world.linked().len(), 2, "{draining} is avoided");
    world.pass(Duration::from_secs(4));
    assert!(world.linked().contains(&draining));
}

#[test]
fn the_only_node_there_is_is_dialled_again_while_it_drains() {
    let mut world = World::new(3, &[20]);
    world.pass(MINUTE);
    world.links.draining(world.now, *world.serving.first_key_value().expect("a link").0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.links.serving(), 1);
    let strangers = world.decisions.iter().filter(|decision| matches!(decision, Decision::Dial { stranger: true, .. }));
    assert_eq!(strangers.count(), 1, "or the node would cut the old link for the new one");
}

#[test]
fn a_second_address_of_a_linked_node_is_closed_before_it_publishes_and_not_tried_again() {
    let mut world = World::new(3, &[20, 20]);
    world.gossip = false;
    world.nodes.insert(address(9), (NodeId([1; 16]), Duration::from_millis(20)));
    world.apex.push(address(9));
    world.pass(60 * MINUTE);
    assert_eq!(world.serving.len(), 2);
    assert_eq!(world.dials(), 3);
    let twin = world.decisions.iter().find(|decision| matches!(decision, Decision::Close(_)));
    assert!(twin.is_some(), "{:?}", world.decisions);
}

#[test]
fn links_move_to_nodes_that_are_clearly_nearer_one_at_a_time_and_make_before_break() {
    let mut world = World::new(2, &[100, 100]);
    world.pass(MINUTE);
    for (number, rtt_ms) in [(3, 20), (4, 30), (5, 95), (6, 75)] {
        world.nodes.insert(address(number), (NodeId([number; 16]), Duration::from_millis(rtt_ms)));
    }
    let told = world.neighbours();
    world.links.heard(world.now, *world.serving.first_key_value().expect("a link").0, &told);
    let before = world.decisions.len();
    world.pass(240 * MINUTE);
    assert_eq!(world.linked(), [address(3), address(4)].into());
    for pair in world.decisions[before..].windows(2) {
        if let Decision::Leave(left) = pair[1] {
            assert!(matches!(pair[0], Decision::Serve(new) if new != left), "{pair:?}");
        }
    }
    let moves = world.decisions[before..].iter().filter(|decision| matches!(decision, Decision::Leave(_))).count();
    assert!((2..=4).contains(&moves), "{moves}");
}

#[test]
fn nodes_that_are_about_as_near_leave_the_links_where_they_are() {
    let mut world = World::new(3, &[20, 21, 22, 23, 19, 18, 25, 28]);
    world.pass(Duration::from_secs(1));
    let before = world.linked();
    world.pass(48 * 60 * MINUTE);
    assert_eq!(world.linked(), before);
    // Each of the five others is measured a few times a day.
    assert!(world.dials() <= 3 + 5 * 9, "{}", world.dials());
}

#[test]
fn links_are_on_different_machines_although_another_node_of_one_of_them_is_nearer() {
    for seed in 0..50 {
        let mut world = World::new(3, &[]);
        world.links = Links::new((3, Transport::Auto), true, seed);
        // Four nodes on a machine near by, two on others.
        for (number, rtt_ms) in [(1, 10), (2, 11), (3, 12), (4, 13), (5, 40), (6, 90)] {
            let at = SocketAddr::new(address(number.max(4)).ip(), 440 + u16::from(number));
            world.nodes.insert(at, (NodeId([number; 16]), Duration::from_millis(rtt_ms)));
        }
        world.apex = world.nodes.keys().copied().collect();
        let machines = |world: &World| world.linked().iter().map(SocketAddr::ip).collect::<BTreeSet<_>>();
        world.pass(Duration::from_secs(1));
        assert_eq!(machines(&world).len(), 3, "{:?}", world.linked());
        world.pass(48 * 60 * MINUTE);
        assert_eq!(machines(&world).len(), 3, "{:?}", world.linked());
        assert!(world.dials() <= 3 + 3 * 40, "{}", world.dials());
    }
}

#[test]
fn a_link_moves_to_another_machine_where_two_links_are_on_one_and_back_when_there_is_none() {
    let mut world = World::new(3, &[40]);
    let near = |number: u16| SocketAddr::new(address(9).ip(), number);
    for number in 1..4 {
        world.nodes.insert(near(number), (NodeId([100 + number as u8; 16]), Duration::from_millis(5)));
    }
    world.down.insert(address(1));
    world.apex = world.nodes.keys().copied().collect();
    world.pass(10 * MINUTE);
    assert_eq!(world.linked(), [near(1), near(2), near(3)].into());
    world.down.clear();
    world.pass(60 * MINUTE);
    assert!(world.linked().contains(&address(1)), "{:?}", world.linked());
    let dials = world.dials();
    world.pass(48 * 60 * MINUTE);
    assert!(world.linked().contains(&address(1)), "{:?}", world.linked());
    assert!(world.dials() - dials <= 40, "{}", world.dials() - dials);
    world.kill(address(1));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.linked(), [near(1), near(2), near(3)].into());
}

#[test]
fn a_new_node_gets_its_share_of_the_clients() {
    let moved = |seed: u64| {
        let mut world = World::new(3, &[20; 5]);
        world.links = Links::new((3, Transport::Auto), true, seed);
        world.pass(10 * MINUTE);
        world.nodes.insert(address(9), (NodeId([9; 16]), Duration::from_millis(20)));
        let told = world.neighbours();
        world.links.heard(world.now, *world.serving.first_key_value().expect("a link").0, &told);
        world.pass(20 * MINUTE);
        world.linked().contains(&address(9))
    };
    let count = (0..200).filter(|seed| moved(*seed)).count();
    // Three of six.
    assert!((70..130).contains(&count), "{count} of 200");
}

#[test]
fn endless_draining_holds_a_bounded_number_of_old_links() {
    let mut world = World::new(8, &[20; 64]);
    world.pass(MINUTE);
    for _ in 0..500 {
        let serving = world.links.open.iter().find(|open| open.is_serving()).map(|open| open.link);
        if let Some(link) = serving {
            world.links.draining(world.now, link);
        }
        world.pass(Duration::from_secs(1));
    }
    assert!(world.open.len() <= 8 + LEAVING, "{}", world.open.len());
}

/// How each address was dialled, in order.
fn plans(decisions: &[Decision]) -> Vec<Plan> {
    let plan = |decision: &Decision| if let Decision::Dial { plan, .. } = decision { Some(*plan) } else { None };
    decisions.iter().filter_map(plan).collect()
}

#[test]
fn where_udp_is_blocked_links_come_up_over_tcp_which_is_dialled_at_once_from_then_on() {
    let mut world = World::new(3, &[20; 3]);
    world.blocked = world.nodes.keys().copied().collect();
    world.pass(Duration::from_secs(2));
    assert_eq!((world.linked().len(), world.over_tcp.len()), (3, 3));
    world.decisions.clear();
    world.kill(address(2));
    world.down.clear();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.over_tcp.len(), 3);
    assert_eq!(plans(&world.decisions)[0], Plan { udp: true, tcp_after: Some(Duration::ZERO) });
}

#[test]
fn links_go_back_to_udp_one_by_one_soon_after_it_works_and_are_never_fewer() {
    // With fewer nodes than wanted links, too.
    for nodes in [1, 3] {
        let mut world = World::new(3, &vec![20; nodes]);
        world.blocked = world.nodes.keys().copied().collect();
        world.pass(120 * MINUTE);
        assert_eq!(world.over_tcp.len(), nodes);
        let trials = plans(&world.decisions).iter().filter(|plan| plan.tcp_after.is_none()).count();
        assert!((10..25).contains(&trials), "{trials} in two hours");
        world.blocked.clear();
        world.decisions.clear();
        world.pass(16 * MINUTE);
        assert_eq!((world.linked().len(), world.over_tcp.len()), (nodes, 0));
        for pair in world.decisions.windows(2) {
            if let Decision::Leave(left) = pair[1] {
                assert!(matches!(pair[0], Decision::Serve(new) if new != left), "{pair:?}");
            }
        }
        world.decisions.clear();
        world.pass(60 * MINUTE);
        assert_eq!(plans(&world.decisions), [], "nothing is left to be tried");
    }
}

#[test]
fn a_node_that_only_tcp_reaches_changes_nothing_for_the_others() {
    let mut world = World::new(3, &[20; 4]);
    world.blocked = [address(2)].into();
    world.down = [address(4)].into();
    world.pass(60 * MINUTE);
    assert_eq!((world.linked().len(), world.over_tcp.len()), (3, 1));
    world.decisions.clear();
    world.kill(address(3));
    world.pass(MINUTE);
    let delayed = plans(&world.decisions).into_iter().find(|plan| plan.tcp_after.is_some()).expect("a dial");
    assert_eq!(delayed, Plan { udp: true, tcp_after: Some(Duration::from_millis(250)) });
}

/// What may happen to a client.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Kill(u8),
    Revive(u8),
    Lose(u8),
    Drain(u8),
    Rtt(u8, u64),
    Garbage(Vec<(u8, [u8; 4], u16)>),
    Ready(bool),
    Woke,
    Block(u8),
    Unblock(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..100_000_u64).prop_map(Event::Pass),
        2 => (1..8_u8).prop_map(Event::Kill),
        2 => (1..8_u8).prop_map(Event::Revive),
        1 => any::<u8>().prop_map(Event::Lose),
        1 => any::<u8>().prop_map(Event::Drain),
        1 => (any::<u8>(), 1..300_u64).prop_map(|(link, rtt_ms)| Event::Rtt(link, rtt_ms)),
        1 => prop::collection::vec(any::<(u8, [u8; 4], u16)>(), 0..16).prop_map(Event::Garbage),
        1 => any::<bool>().prop_map(Event::Ready),
        1 => Just(Event::Woke),
        1 => (1..8_u8).prop_map(Event::Block),
        1 => (1..8_u8).prop_map(Event::Unblock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_links_stay_apart_and_bounded_and_heal(
        wanted in 1..=8_usize,
        rtts_ms in prop::collection::vec(1..300_u64, 1..8),
        events in prop::collection::vec(event(), 0..40),
        seed: u64,
    ) {
        let mut world = World::new(wanted, &rtts_ms);
        world.links = Links::new((wanted, Transport::Auto), true, seed);
        world.pass(Duration::ZERO);
        for event in events {
            let nth = |index: u8| world.serving.keys().copied().nth(usize::from(index) % world.serving.len().max(1));
            match event {
                Event::Pass(ms) => world.pass(Duration::from_millis(ms)),
                Event::Kill(number) => world.kill(address(number)),
                Event::Revive(number) => drop(world.down.remove(&address(number))),
                Event::Lose(index) => if let Some(link) = nth(index) { world.end(link) },
                Event::Drain(index) => if let Some(link) = nth(index) { world.links.draining(world.now, link) },
                Event::Rtt(index, ms) => if let Some(link) = nth(index) {
                    world.links.measured(world.now, link, Duration::from_millis(ms));
                },
                Event::Garbage(told) => if let Some(link) = nth(0) {
                    let neighbour = |(node, ip, port): (u8, [u8; 4], u16)| Neighbour {
                        node: NodeId([node; 16]),
                        address: Address::from(SocketAddr::from((ip, port))),
                    };
                    let told: Vec<Neighbour> = told.into_iter().map(neighbour).collect();
                    world.links.heard(world.now, link, &told);
                },
                Event::Ready(ready) => world.links.set_ready(world.now, ready),
                Event::Woke => world.links.woke(world.now),
                Event::Block(number) => drop(world.blocked.insert(address(number))),
                Event::Unblock(number) => drop(world.blocked.remove(&address(number))),
            }
            world.obey();
            // Below what is wanted something is always under way, or a moment is known when it will be.
            if world.links.serving() < world.links.wanted() {
                prop_assert!(world.links.dialling() > 0 || world.links.wake_at().is_some());
            }
        }
        // Lies about who stands where do not outlive the liar: nodes that are up are found again.
        world.down.clear();
        world.links.set_ready(world.now, true);
        world.obey();
        let leaving: Vec<_> = world.links.open.iter().filter(|open| open.is_leaving()).map(|open| open.link).collect();
        for link in leaving {
            world.end(link);
        }
        world.pass(20 * MINUTE);
        let serving = world.links.serving();
        prop_assert!(serving >= wanted.min(world.nodes.len()), "{serving} of {wanted}, {} nodes", world.nodes.len());
    }
}
