use std::{path::Path, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::storage::{folder::FolderError, snapshot};

async fn restarted(node: Node, data_dir: &Path) -> Node {
    node.stop().await;
    Node::open(data_dir).unwrap()
}

fn fresh() -> (TempDir, Node) {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(folder.path()).unwrap();
    (folder, node)
}

fn key(text: &str) -> Key {
    Key::new(text)
}

#[tokio::test]
async fn a_write_acked_survives_a_restart() {
    let (folder, node) = fresh();
    let store = node.handle();
    let first = store.put(&key("a"), "one", None).await.unwrap();
    assert!(store.set_append(&key("a"), "child").await.unwrap());
    assert!(store.set_append(&key("b"), "kept").await.unwrap());
    assert!(store.set_append(&key("b"), "gone").await.unwrap());
    assert!(store.set_remove(&key("b"), "gone").await.unwrap());

    let node = restarted(node, folder.path()).await;
    let store = node.handle();
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(Versioned { value: b"one".to_vec(), version: first }));
    assert_eq!(store.hint_get(&key("a")).await, store.get(&key("a")).await);
    assert!(store.set_contains(&key("a"), "child").await.unwrap());
    assert_eq!(store.set_list(&key("b")).await.unwrap(), [b"kept".to_vec()]);
    assert!(store.put(&key("a"), "two", None).await.unwrap() > first, "versions only grow");
}

#[tokio::test]
async fn a_key_made_again_never_gets_an_old_version() {
    let (folder, node) = fresh();
    let old = node.handle().put(&key("a"), "x", None).await.unwrap();
    assert!(node.handle().delete(&key("a")).await.unwrap());
    assert!(!node.handle().delete(&key("a")).await.unwrap());
    let node = restarted(node, folder.path()).await;
    let store = node.handle();
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    store.compare_and_swap(&key("a"), None, Some(b"y".to_vec())).await.unwrap();
    assert_eq!(store.compare_and_swap(&key("a"), Some(old), None).await, Err(Error::Conflict));
}

#[tokio::test]
async fn of_many_claims_for_one_key_exactly_one_wins() {
    let (_folder, node) = fresh();
    let claims = (0..64u8).map(|claim| {
        let store = node.handle();
        tokio::spawn(async move { store.compare_and_swap(&key("name"), None, Some(vec![claim])).await })
    });
    let mut won = 0;
    for claim in claims.collect::<Vec<_>>() {
        match claim.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, Error::Conflict),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_lease_survives_a_restart_and_the_next_token_is_larger() {
    let (folder, node) = fresh();
    let ttl = Duration::from_secs(600);
    let lease = node.handle().lease_acquire(&key("l"), "me", 1, ttl).await.unwrap();
    let node = restarted(node, folder.path()).await;
    let store = node.handle();
    assert_eq!(store.lease_acquire(&key("l"), "you", 1, ttl).await, Err(Error::Conflict));
    assert_eq!(store.lease_acquire(&key("l"), "me", 1, ttl).await.unwrap(), lease);
    assert_eq!(store.lease_renew(&key("l"), lease.token).await.unwrap(), lease);
    store.lease_release(&key("l"), lease.token).await.unwrap();
    assert_eq!(store.lease_renew(&key("l"), lease.token).await, Err(Error::Expired));
    let next = store.lease_acquire(&key("l"), "you", 1, ttl).await.unwrap();
    assert!(next.token > lease.token);

    let fence = |token| Some(Fence { lease: key("l"), token });
    store.put(&key("guarded"), "new", fence(next.token)).await.unwrap();
    assert_eq!(store.put(&key("guarded"), "old", fence(lease.token)).await, Err(Error::StaleFence));
}

#[tokio::test]
async fn a_repeated_write_takes_effect_once() {
    let (folder, node) = fresh();
    let op_id = OpId::draw().unwrap();
    let once = node.handle().repeat(op_id);
    assert!(once.set_append(&key("s"), "child").await.unwrap());
    assert!(node.handle().set_remove(&key("s"), "child").await.unwrap());
    let node = restarted(node, folder.path()).await;
    let once = node.handle().repeat(op_id);
    assert!(once.set_append(&key("s"), "child").await.unwrap(), "the first answer comes again");
    assert!(!node.handle().set_contains(&key("s"), "child").await.unwrap());
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_limit_itself_is_not() {
    let (_folder, node) = fresh();
    let store = node.handle();
    let too_large = |result: Result<Version, Error>| matches!(result, Err(Error::TooLarge { .. }));
    store.put(&Key::new([7; limits::KEY_BYTES]), [7; limits::VALUE_BYTES], None).await.unwrap();
    assert!(too_large(store.put(&Key::new([7; limits::KEY_BYTES + 1]), "", None).await));
    assert!(too_large(store.put(&key("a"), [7; limits::VALUE_BYTES + 1], None).await));
    assert!(store.set_append(&key("a"), [7; limits::CHILD_BYTES + 1]).await.is_err());
}

#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused() {
    let (folder, node) = fresh();
    assert!(matches!(Node::open(folder.path()), Err(OpenError::Folder(FolderError::Held { .. }))));
    node.stop().await;
    Node::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_stopped_store_says_that_it_is_draining() {
    let (_folder, node) = fresh();
    let store = node.handle();
    node.stop().await;
    assert_eq!(store.put(&key("a"), "x", None).await, Err(Error::Draining));
    assert_eq!(store.get(&key("a")).await, Err(Error::Draining));
}

#[tokio::test]
async fn a_call_without_time_changes_nothing() {
    let (_folder, node) = fresh();
    let hurried = node.handle().within(Duration::ZERO);
    assert!(hurried.put(&key("a"), "x", None).await.unwrap_err().retry());
    assert_eq!(node.handle().get(&key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_makes_the_store_read_only_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = snapshot::Snapshot::open(crate::storage::folder::Folder::open(folder.path()).unwrap()).unwrap();
    let pages = file.limit_pages(40);
    let node = Node::start(file).unwrap();
    let store = node.handle();
    store.put(&key("a"), "kept", None).await.unwrap();
    let large = vec![7; limits::VALUE_BYTES];
    let mut written = Vec::new();
    let refused = loop {
        let name = Key::new(format!("large {}", written.len()));
        match store.put(&name, large.clone(), None).await {
            Ok(_) => written.push(name),
            Err(error) => break (name, error),
        }
    };
    assert_eq!(refused.1, Error::ReadOnly);
    assert_eq!(store.get(&refused.0).await.unwrap(), None, "a write that failed is taken back");
    assert!(store.get(&key("a")).await.unwrap().is_some(), "reads go on");
    assert!(pages > 40);
    // Deleting needs no new pages, and makes room.
    for name in &written {
        assert!(store.delete(name).await.unwrap());
    }
    store.put(&key("b"), "x", None).await.unwrap();
}

#[tokio::test]
async fn a_file_that_another_program_holds_for_a_while_is_written_again_afterwards() {
    let (folder, node) = fresh();
    let store = node.handle().within(Duration::from_secs(20));
    store.put(&key("a"), "kept", None).await.unwrap();
    let lock = snapshot::tests::lock(folder.path());
    assert_eq!(store.put(&key("a"), "no", None).await, Err(Error::ReadOnly));
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, b"kept");
    drop(lock);
    store.put(&key("a"), "again", None).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_is_unknown_and_ends_writing() {
    let (folder, node) = fresh();
    let store = node.handle();
    store.put(&key("a"), "kept", None).await.unwrap();
    snapshot::tests::sabotage(folder.path());
    let refused = store.put(&key("a"), "perhaps", None).await;
    assert!(matches!(refused, Err(Error::Unknown { .. })), "{refused:?}");
    assert_eq!(store.put(&key("a"), "no", None).await, Err(Error::ReadOnly));
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, b"kept", "reads go on");
}
