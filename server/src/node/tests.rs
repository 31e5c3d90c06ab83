//! The store as those above see it: a node alone, its restarts, and what is on its disk.

use std::{net::SocketAddr, path::Path, sync::Arc, time::SystemTime};

use specter_dht::{Terms, kv, node::Settings, ring};
use specter_storage::{
    disk::{Disk, Folder, FolderError},
    fault::FaultDisk,
    settings,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::{
    identity::{Credentials, pki, tls},
    shutdown::Shutdown,
    transport::peers::Peers,
};

mod cluster;
mod directory;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

impl Tuning {
    /// For tests: few slots, and a node that is quick to decide.
    pub(crate) fn hasty() -> Self {
        let milliseconds = Duration::from_millis;
        let slot = kv::Settings {
            heartbeat: milliseconds(200),
            sticky: milliseconds(500),
            election: milliseconds(600),
            step_down: milliseconds(900),
            retry_after: milliseconds(500),
            ..kv::Settings::default()
        };
        let ring = ring::Settings {
            stabilize: milliseconds(150),
            silence: milliseconds(900),
            probe: milliseconds(500),
            quarantine: milliseconds(500),
            ..ring::Settings::default()
        };
        let node = Settings {
            ring,
            slot,
            placement: milliseconds(300),
            light_hold_off: milliseconds(200),
            join_hold_off: milliseconds(500),
            crash_hold_off: milliseconds(1500),
            ..Settings::default()
        };
        let log = settings::Settings {
            segment_bytes: 1 << 20,
            reserve_bytes: 64 << 10,
            reclaim_every: milliseconds(50),
            ..settings::Settings::default()
        };
        Self { terms: Terms { slot_bits: 3, replicas: 3 }, node, log }
    }
}

/// A node that is alone in its cluster.
pub(crate) fn alone(data_dir: &Path) -> Node {
    start(Folder::open(data_dir).expect("a folder"), data_dir, Vec::new()).expect("a store")
}

fn try_alone(data_dir: &Path) -> Result<Node, OpenError> {
    start(Folder::open(data_dir)?, data_dir, Vec::new())
}

fn start<D: Disk<File: Send> + Send + 'static>(
    disk: D,
    data_dir: &Path,
    seeds: Vec<SocketAddr>,
) -> Result<Node, OpenError> {
    let certs = tempfile::tempdir().expect("a folder");
    pki::init(&certs.path().join("0"), "localhost", SystemTime::now()).expect("certificates");
    let credentials = Credentials::from_directory(&certs.path().join("0")).expect("credentials");
    let (inbox, arrivals) = mpsc::channel(1);
    let tasks = Shutdown::new();
    let dial = Arc::new(tls::dial(&credentials).expect("TLS"));
    let peers = Peers::start(Vec::new(), dial, inbox, tasks.clone()).expect("started");
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let opening =
        Opening { data_dir, cluster: [7; 16], address, founds: seeds.is_empty(), seeds, tuning: Tuning::hasty() };
    Node::start(disk, opening, peers, arrivals, &tasks)
}

fn fresh() -> (TempDir, Node) {
    let folder = tempfile::tempdir().unwrap();
    let node = alone(folder.path());
    (folder, node)
}

async fn restarted(node: Node, data_dir: &Path) -> Node {
    node.stop().await;
    alone(data_dir)
}

fn store(node: &Node) -> Handle {
    node.handle().within(LONG)
}

fn key(text: &str) -> Key {
    Key::new(text)
}

#[tokio::test]
async fn a_write_acked_survives_a_restart() {
    let (folder, node) = fresh();
    store(&node).put(&key("a"), "one", None).await.unwrap();
    assert!(store(&node).set_append(&key("a"), "child").await.unwrap());
    assert!(store(&node).set_append(&key("b"), "kept").await.unwrap());
    assert!(store(&node).set_append(&key("b"), "gone").await.unwrap());
    assert!(!store(&node).set_append(&key("b"), "gone").await.unwrap());
    assert!(store(&node).set_remove(&key("b"), "gone").await.unwrap());
    store(&node).put(&key("c"), "deleted later", None).await.unwrap();

    let node = restarted(node, folder.path()).await;
    assert_eq!(store(&node).get(&key("a")).await.unwrap(), Some(b"one".to_vec()));
    assert!(store(&node).set_contains(&key("a"), "child").await.unwrap());
    assert_eq!(store(&node).set_list(&key("b")).await.unwrap(), [b"kept".to_vec()]);
    store(&node).put(&key("a"), "two", None).await.unwrap();
    store(&node).delete(&key("c")).await.unwrap();

    let node = restarted(node, folder.path()).await;
    assert_eq!(store(&node).get(&key("a")).await.unwrap(), Some(b"two".to_vec()));
    assert_eq!(store(&node).hint_get(&key("a")).await.unwrap(), Some(b"two".to_vec()));
    assert_eq!(store(&node).get(&key("c")).await.unwrap(), None);
    node.stop().await;
}

#[tokio::test]
async fn a_swap_needs_the_value_it_expects() {
    let (_folder, node) = fresh();
    let store = store(&node);
    let swap = |old: Option<&str>, new: Option<&str>| {
        let (old, new) = (old.map(Into::into), new.map(Into::into));
        async { store.compare_and_swap(&key("a"), old, new).await }
    };
    assert_eq!(swap(Some("x"), Some("y")).await, Err(Error::Conflict), "absent");
    swap(None, Some("x")).await.unwrap();
    assert_eq!(swap(None, Some("y")).await, Err(Error::Conflict), "present");
    swap(Some("x"), Some("y")).await.unwrap();
    assert_eq!(swap(Some("x"), None).await, Err(Error::Conflict), "changed since");
    swap(Some("y"), None).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_claims_for_one_key_exactly_one_wins() {
    let (_folder, node) = fresh();
    let claims = (0..64u8).map(|claim| {
        let store = store(&node);
        tokio::spawn(async move { store.compare_and_swap(&key("name"), None, Some(vec![claim])).await })
    });
    let mut won = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error, Error::Conflict),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_lease_survives_a_restart_and_the_next_token_is_larger() {
    let (folder, node) = fresh();
    let ttl = Duration::from_secs(600);
    let lease = store(&node).lease_acquire(&key("l"), "me", 1, ttl).await.unwrap();
    let node = restarted(node, folder.path()).await;
    let store = store(&node);
    assert_eq!(store.lease_acquire(&key("l"), "you", 1, ttl).await, Err(Error::Conflict));
    assert_eq!(store.lease_acquire(&key("l"), "me", 1, ttl).await.unwrap(), lease);
    store.lease_renew(&key("l"), lease.token).await.unwrap();
    store.lease_release(&key("l"), lease.token).await.unwrap();
    assert_eq!(store.lease_renew(&key("l"), lease.token).await, Err(Error::Expired));
    let next = store.lease_acquire(&key("l"), "you", 1, ttl).await.unwrap();
    assert!(next.token > lease.token);

    let fence = |token| Some(Fence { lease: key("l"), token });
    store.put(&key("guarded"), "new", fence(next.token)).await.unwrap();
    assert_eq!(store.put(&key("guarded"), "old", fence(lease.token)).await, Err(Error::StaleFence));
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_limit_itself_is_not() {
    let (_folder, node) = fresh();
    let store = store(&node);
    let too_large = |result: Result<(), Error>| matches!(result, Err(Error::TooLarge { .. }));
    store.put(&Key::new([7; limits::KEY_BYTES]), [7; limits::VALUE_BYTES], None).await.unwrap();
    assert!(too_large(store.put(&Key::new([7; limits::KEY_BYTES + 1]), "", None).await));
    assert!(too_large(store.put(&key("a"), [7; limits::VALUE_BYTES + 1], None).await));
    assert!(too_large(store.set_append(&key("a"), [7; limits::CHILD_BYTES + 1]).await.map(drop)));
}

#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused() {
    let (folder, node) = fresh();
    assert!(matches!(try_alone(folder.path()), Err(OpenError::Folder(FolderError::Held { .. }))));
    node.stop().await;
    try_alone(folder.path()).unwrap();
}

#[tokio::test]
async fn a_stopped_store_says_that_it_is_draining() {
    let (_folder, node) = fresh();
    let store = store(&node);
    node.stop().await;
    assert_eq!(store.put(&key("a"), "x", None).await, Err(Error::Draining));
    assert_eq!(store.get(&key("a")).await, Err(Error::Draining));
}

#[tokio::test]
async fn a_node_alone_leaves_at_once() {
    let (_folder, node) = fresh();
    store(&node).put(&key("a"), "x", None).await.unwrap();
    assert!(node.leave(LONG).await);
    node.stop().await;
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_over() {
    // Nobody is there whom it could join.
    let folder = tempfile::tempdir().unwrap();
    let seeds = vec![SocketAddr::from(([127, 0, 0, 1], 2))];
    let node = start(Folder::open(folder.path()).unwrap(), folder.path(), seeds).unwrap();
    let hurried = node.handle().within(Duration::ZERO);
    // A node alone may have its answer at once.
    match hurried.get(&key("a")).await {
        Ok(value) => assert_eq!(value, None),
        Err(refused) => assert!(refused.retry(), "{refused}"),
    }
    let refused = hurried.put(&key("a"), "x", None).await.unwrap_err();
    assert!(refused.retry(), "{refused}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_takes_writes_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultDisk::new();
    let node = start(disk.clone(), folder.path(), Vec::new()).unwrap();
    let store = store(&node).within(Duration::from_secs(3));
    store.put(&key("a"), "kept", None).await.unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut written = 0;
    let refused = loop {
        match store.put(&Key::new(format!("large {written}")), vec![7; limits::VALUE_BYTES], None).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    // The write that met the full disk waits for room; whether it gets some before its time is over, nobody can tell.
    assert!(matches!(refused, Error::ReadOnly | Error::Unknown), "{refused:?}");
    let hurried = store.within(Duration::from_secs(1));
    assert_eq!(hurried.put(&key("b"), "no", None).await, Err(Error::ReadOnly));
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(b"kept".to_vec()), "reads go on");
    disk.set_capacity(None);
    self::store(&node).put(&key("b"), "yes", None).await.unwrap();
    assert_eq!(store.get(&key("b")).await.unwrap(), Some(b"yes".to_vec()));
    node.stop().await;
}
