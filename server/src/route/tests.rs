//! Routes in a store of one node. What is done once a minute is seen with a clock that the test moves.

use super::{
    announce::Announcer,
    key::{self, Route},
    table::Table,
};
use crate::{
    identity::{Credentials, pki, tls},
    link::registry::{Registry, Tunnel, tests::Loopback},
    node::{self, Handle, Node},
    shutdown::Shutdown,
    transport::relay::Relays,
};
use specter_wire::{id::ClientId, link::Carries, name::Hostname};
use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};
use tokio::{
    task::spawn_blocking,
    time::{advance, interval, pause, timeout},
};

/// Connections to nowhere.
pub(super) fn relays(tasks: &Shutdown) -> Arc<Relays> {
    let certs = tempfile::tempdir().expect("a folder");
    pki::init(certs.path(), "localhost", SystemTime::now()).expect("certificates");
    let credentials = Credentials::from_directory(certs.path()).expect("credentials");
    let tls = Arc::new(tls::relay(&credentials).expect("TLS"));
    Relays::new(Vec::new(), tls, tasks.clone()).expect("TLS for QUIC")
}

pub(super) struct Stage {
    pub(super) store: Handle,
    pub(super) tasks: Shutdown,
    node: Node,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = node::tests::alone(folder.path());
        Self { store: node.handle().within(Duration::from_secs(30)), tasks: Shutdown::new(), node, _folder: folder }
    }

    pub(super) async fn register(&self, hostname: &Hostname) {
        let owner = key::Registration { owner: ClientId([1; 32]) };
        self.store.put(&key::hostname(hostname), owner.to_bytes(), None).await.expect("written");
    }

    pub(super) async fn add(&self, hostname: &Hostname, node: u16) {
        self.store.set_append(&key::routes_of(hostname), route(node).to_bytes()).await.expect("written");
    }

    pub(super) async fn end(self) {
        self.tasks.finish(Duration::from_secs(5)).await;
        self.node.stop().await;
    }
}

pub(super) fn address(node: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], node))
}

pub(super) fn route(node: u16) -> Route {
    let tunnel = Tunnel { carries: Carries::Http, host: None, header_timeout: Duration::from_secs(9) };
    Route { node: address(node), tunnel }
}

pub(super) fn name(text: &str) -> Hostname {
    Hostname::parse(text).expect("a name")
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let mut pace = interval(Duration::from_millis(20));
    let wait = async {
        while !is_so().await {
            pace.tick().await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test]
async fn a_name_that_was_unknown_is_found_soon_after_it_is_published() {
    let stage = Stage::new();
    let table = Table::new(&stage.store, address(9), stage.tasks.clone());
    let a = name("a");
    let known = table.look_up(&a).await.expect("looked up");
    assert!(!known.is_registered && known.routes.is_empty());
    stage.register(&a).await;
    stage.add(&a, 1).await;
    until("the route", || async { !table.look_up(&a).await.expect("looked up").routes.is_empty() }).await;
    // Whoever found no way with an older answer sees a newer one at once.
    stage.add(&a, 2).await;
    until("the second", || async { table.look_again(&a).await.expect("looked up").routes.len() == 2 }).await;
    stage.end().await;
}

#[tokio::test]
async fn a_node_without_a_link_is_marked_and_the_answer_fetched_anew() {
    let stage = Stage::new();
    let table = Table::new(&stage.store, address(9), stage.tasks.clone());
    let a = name("a");
    stage.register(&a).await;
    for node in [1, 2] {
        stage.add(&a, node).await;
    }
    let known = table.look_up(&a).await.expect("looked up");
    stage.store.set_remove(&key::routes_of(&a), route(1).to_bytes()).await.expect("removed");
    table.miss(&a, address(1));
    assert!(known.is_missed(address(1)) && !known.is_missed(address(2)));
    until("the newer answer", || async { table.look_up(&a).await.expect("looked up").routes == [route(2)] }).await;
    assert!(table.look_up(&a).await.expect("looked up").is_missed(address(1)), "a newer answer forgets nothing");
    stage.end().await;
}

#[tokio::test]
async fn names_that_visitors_invent_cost_bounded_memory() {
    let stage = Stage::new();
    let table = Table::new(&stage.store, address(9), stage.tasks.clone());
    let kept = name("kept");
    stage.register(&kept).await;
    stage.add(&kept, 1).await;
    for number in 0..10_000 {
        let invented = name(&format!("invented-{number}"));
        assert!(!table.look_up(&invented).await.expect("looked up").is_registered);
        if number % 100 == 0 {
            assert_eq!(table.look_up(&kept).await.expect("looked up").routes, [route(1)]);
        }
    }
    assert!(table.names() <= super::table::NAMES, "{} names", table.names());
    stage.end().await;
}

#[tokio::test]
async fn a_restarted_node_removes_the_routes_to_it_that_others_find() {
    let stage = Stage::new();
    let registry = Arc::new(Registry::default());
    let ours = address(7);
    let announcer = Announcer::start(&stage.store, registry.clone(), relays(&stage.tasks), ours, &stage.tasks);
    let a = name("a");
    for node in [7, 8] {
        stage.add(&a, node).await;
    }
    registry.changes().note(&a);
    let left = || async { stage.store.set_list(&key::routes_of(&a)).await.expect("read") };
    until("the removal", || async { left().await == [route(8).to_bytes()] }).await;
    announcer.withdraw(Duration::from_secs(1)).await;
    stage.end().await;
}

/// The runtime's clock, which stands still but for what the test lets pass. The store is another thread, and goes on.
pub(super) struct Clock {
    /// A clock that stands still leaps by itself when nothing is to be done, but not while something blocks.
    _held: mpsc::Sender<()>,
}

impl Clock {
    pub(super) fn stop() -> Self {
        let (held, never) = mpsc::channel::<()>();
        spawn_blocking(move || never.recv());
        pause();
        Self { _held: held }
    }

    /// A short time of the world, in which the runtime's clock moves even less.
    async fn breathe(&self) {
        let (_held, never) = mpsc::channel::<()>();
        spawn_blocking(move || never.recv_timeout(Duration::from_millis(20))).await.ok();
        advance(Duration::from_millis(6)).await;
    }

    /// Whether it becomes so within that many breaths.
    pub(super) async fn soon<F: Future<Output = bool>>(&self, breaths: usize, is_so: impl Fn() -> F) -> bool {
        for _ in 0..breaths {
            if is_so().await {
                return true;
            }
            self.breathe().await;
        }
        false
    }
}

/// Longer than it takes until all names are looked at again.
const LOOKED_ROUND: Duration = Duration::from_secs(76);

/// Enough for a store on a busy machine.
pub(super) const MANY: usize = 1_500;

#[tokio::test]
async fn a_route_that_the_store_lost_is_told_again_on_the_next_round() {
    let (stage, mut loopback) = (Stage::new(), Loopback::new());
    let registry = Arc::new(Registry::default());
    let link = loopback.enter(&registry, ClientId([1; 32]), 1).await.expect("entered").link;
    let ours = address(7);
    let _announcer = Announcer::start(&stage.store, registry.clone(), relays(&stage.tasks), ours, &stage.tasks);
    let a = name("a");
    assert_eq!(registry.publish(link.id(), &a, route(7).tunnel), Ok(true));
    let routes = || async { stage.store.set_list(&key::routes_of(&a)).await.expect("read") };
    until("the route", || async { routes().await == [route(7).to_bytes()] }).await;

    let clock = Clock::stop();
    stage.add(&a, 8).await;
    stage.store.set_remove(&key::routes_of(&a), route(7).to_bytes()).await.expect("removed");
    // Nobody notes a change; time alone passes.
    advance(LOOKED_ROUND).await;
    let both = || async { routes().await.len() == 2 };
    assert!(clock.soon(MANY, both).await, "{:?}", routes().await);
    assert!(routes().await.contains(&route(7).to_bytes()));
    drop(clock);
    stage.end().await;
}

#[tokio::test]
async fn a_route_without_a_link_is_removed_however_many_visitors_are_led_astray_by_it() {
    let (stage, mut loopback) = (Stage::new(), Loopback::new());
    let registry = Arc::new(Registry::default());
    let link = loopback.enter(&registry, ClientId([1; 32]), 1).await.expect("entered").link;
    let ours = address(7);
    let _announcer = Announcer::start(&stage.store, registry.clone(), relays(&stage.tasks), ours, &stage.tasks);
    let a = name("a");
    assert_eq!(registry.publish(link.id(), &a, route(7).tunnel), Ok(true));
    let routes = || async { stage.store.set_list(&key::routes_of(&a)).await.expect("read") };
    until("the route", || async { routes().await == [route(7).to_bytes()] }).await;

    let clock = Clock::stop();
    registry.leave(link.id());
    let is_removed = || async {
        // Another visitor, a tenth of a second later.
        registry.changes().note(&a);
        advance(Duration::from_millis(100)).await;
        routes().await.is_empty()
    };
    assert!(clock.soon(MANY, is_removed).await, "the route is still there");
    drop(clock);
    stage.end().await;
}

#[tokio::test]
async fn routes_of_a_node_that_stays_away_are_removed_after_minutes_and_not_before() {
    let (stage, mut loopback) = (Stage::new(), Loopback::new());
    let registry = Arc::new(Registry::default());
    let link = loopback.enter(&registry, ClientId([1; 32]), 1).await.expect("entered").link;
    let ours = address(7);
    let relays = relays(&stage.tasks);
    let _announcer = Announcer::start(&stage.store, registry.clone(), relays.clone(), ours, &stage.tasks);
    let a = name("a");
    assert_eq!(registry.publish(link.id(), &a, route(7).tunnel), Ok(true));
    stage.add(&a, 8).await;
    let routes = || async { stage.store.set_list(&key::routes_of(&a)).await.expect("read").len() };
    until("both routes", || async { routes().await == 2 }).await;

    let clock = Clock::stop();
    advance(LOOKED_ROUND).await;
    let is_known_away = || async { relays.sight(address(8)).unreachable.is_some() };
    assert!(clock.soon(MANY, is_known_away).await, "the node was looked for");
    let mut rounds = 1;
    while routes().await == 2 {
        rounds += 1;
        assert!(rounds < 12, "the route of a node that is away for {rounds} rounds is still there");
        advance(LOOKED_ROUND).await;
        // What is done then is done in a moment, but for a busy machine; what is not will be on a later round.
        clock.soon(100, || async { routes().await == 1 }).await;
    }
    // Five minutes, of which each round lets more than one pass.
    assert!(rounds >= 5, "removed after {rounds} rounds");
    assert_eq!(stage.store.set_list(&key::routes_of(&a)).await.expect("read"), [route(7).to_bytes()]);
    drop(clock);
    stage.end().await;
}
