//! Checkpoints, and what the commands on a data directory tell.

use super::{
    super::{offline, restore},
    *,
};

async fn filled() -> (TempDir, Node) {
    let (folder, node) = fresh();
    store(&node).put(&key("a"), "one", None).await.unwrap();
    store(&node).set_append(&key("b"), "child").await.unwrap();
    store(&node).put(&key("gone"), "x", None).await.unwrap();
    store(&node).delete(&key("gone")).await.unwrap();
    (folder, node)
}

fn exported(data_dir: &Path) -> Vec<String> {
    let mut lines: Vec<String> = offline::export(data_dir).unwrap().map(|held| held.to_json()).collect();
    lines.sort_unstable_by_key(|line| line.split_once("\"key\"").map(|(_, rest)| rest.to_owned()));
    lines
}

/// Waits for something that another thread does, without a clock of its own.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !holds() {
            tick.tick().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{what} did not happen in time"));
}

#[tokio::test]
async fn a_node_that_stops_leaves_everything_in_its_snapshot() {
    let (folder, node) = filled().await;
    node.stop().await;
    let json = offline::check(folder.path()).unwrap().to_json();
    assert!(json.contains(r#""closed":true"#) && json.contains(r#""records":0,"#), "{json}");
    let node = alone(folder.path());
    assert_eq!(store(&node).get(&key("a")).await.unwrap(), Some(b"one".to_vec()));
    assert_eq!(store(&node).get(&key("gone")).await.unwrap(), None);
    node.stop().await;
}

#[tokio::test]
async fn a_long_log_is_written_down_while_the_node_runs_and_what_follows_is_replayed_over_it() {
    let (folder, node) = filled().await;
    let value = vec![7; limits::VALUE_BYTES];
    let mut puts = 0;
    // Nine MiB for two keys: far more log than data.
    while puts < 144 {
        store(&node).put(&key(["x", "y"][puts % 2]), value.clone(), None).await.unwrap();
        puts += 1;
    }
    let snapshot = folder.path().join("snap.db");
    until("a checkpoint", || {
        snapshot.exists() && !offline::check(folder.path()).unwrap().to_json().contains(r#""snapshot_lsn":0,"#)
    })
    .await;
    store(&node).put(&key("a"), "two", None).await.unwrap();
    // As if the power went now: a copy of a running node was not closed.
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    offline::copy(folder.path(), &copy).unwrap();
    node.stop().await;
    let node = alone(&copy);
    assert_eq!(store(&node).get(&key("a")).await.unwrap(), Some(b"two".to_vec()));
    assert_eq!(store(&node).get(&key("x")).await.unwrap(), Some(value));
    assert_eq!(store(&node).get(&key("gone")).await.unwrap(), None);
    node.stop().await;
}

#[tokio::test]
async fn a_copy_is_not_taken_for_the_node_that_others_counted_on() {
    let (folder, node) = filled().await;
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    let json = offline::copy(folder.path(), &copy).unwrap().to_json();
    assert!(json.contains(r#""may_have_forgotten":true"#), "{json}");
    node.stop().await;
    let seeds = vec![SocketAddr::from(([127, 0, 0, 1], 2))];
    let refused = start(Folder::open(&copy).unwrap(), &copy, seeds).unwrap_err();
    assert!(matches!(refused, OpenError::Forgotten { .. }), "{refused}");
    assert!(refused.to_string().contains("move the directory away"), "{refused}");
    // Alone there is nobody who counted on it; from then on it is a directory like any other.
    alone(&copy).stop().await;
    let json = offline::check(&copy).unwrap().to_json();
    assert!(json.contains(r#""may_have_forgotten":false"#), "{json}");
}

#[tokio::test]
async fn an_export_has_what_is_held_and_not_what_was_deleted() {
    let (folder, node) = filled().await;
    let running = exported(folder.path());
    assert_eq!(running.len(), 2, "{running:?}");
    assert!(running[0].contains(r#""key":"YQ==""#) && running[0].contains(r#""value":"b25l","set":[]"#), "{running:?}");
    assert!(running[1].contains(r#""key":"Yg==""#) && running[1].contains(r#""value":null,"set":["Y2hpbGQ="]"#));
    node.stop().await;
    assert_eq!(exported(folder.path()), running);
}

#[tokio::test]
async fn a_dump_has_every_record_that_the_snapshot_lacks() {
    let (folder, node) = filled().await;
    let mut lines = Vec::new();
    offline::dump(folder.path(), false, |line| lines.push(line.to_owned())).unwrap();
    assert!(lines[0].starts_with("1 slot 0: Cluster { terms"), "{lines:?}");
    let mut json = Vec::new();
    offline::dump(folder.path(), true, |line| json.push(line.to_owned())).unwrap();
    assert!(json[0].starts_with(r#"{"lsn":1,"#) && json.len() >= lines.len(), "{json:?}");
    node.stop().await;
    let mut rest = 0;
    offline::dump(folder.path(), false, |_| rest += 1).unwrap();
    assert_eq!(rest, 0);
}

#[tokio::test]
async fn compacting_needs_a_stopped_node_and_keeps_everything() {
    let (folder, node) = filled().await;
    assert!(matches!(offline::compact(folder.path()), Err(offline::OfflineError::Folder(FolderError::Held { .. }))));
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    offline::copy(folder.path(), &copy).unwrap();
    node.stop().await;
    let before = exported(&copy);
    let json = offline::compact(&copy).unwrap().to_json();
    assert!(json.contains(r#""records":0,"#) && json.contains(r#""may_have_forgotten":true"#), "{json}");
    assert_eq!(exported(&copy), before);
}

#[test]
fn a_directory_without_a_store_is_told_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for error in [
        offline::check(folder.path()).unwrap_err(),
        offline::compact(folder.path()).unwrap_err(),
        offline::copy(folder.path(), &folder.path().join("new")).unwrap_err(),
    ] {
        assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "and nothing is made there");
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_directory_becomes_a_new_one() {
    let (folder, node) = filled().await;
    node.stop().await;
    let node = alone(folder.path());
    store(&node).put(&key("c"), "three", None).await.unwrap();
    let parent = tempfile::tempdir().unwrap();
    let [damaged, made] = ["damaged", "made"].map(|name| parent.path().join(name));
    offline::copy(folder.path(), &damaged).unwrap();
    node.stop().await;
    let segments = std::fs::read_dir(damaged.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.max().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    // In the first record, behind the header.
    bytes[64 + 40] ^= 1;
    std::fs::write(&last, bytes).unwrap();

    let wanted = |accepts_loss, is_dry| restore::Wanted { from: vec![damaged.clone()], accepts_loss, is_dry };
    let refused = restore::restore(&wanted(false, false), &made).unwrap_err().to_string();
    assert!(refused.contains("--accept-loss"), "{refused}");
    let told = restore::restore(&wanted(true, true), &made).unwrap().to_string();
    assert!(told.contains("It would hold") && told.contains("Lost:") && !made.exists(), "{told}");
    let json = restore::restore(&wanted(true, false), &made).unwrap().to_json();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["losses"][0]["snapshot_whole"], &json["registers"]), (&true.into(), &4.into()), "{json}");
    let node = alone(&made);
    for (name, value) in [("a", "one"), ("c", "three")] {
        assert_eq!(store(&node).get(&key(name)).await.unwrap(), Some(value.into()), "{name}");
    }
    store(&node).put(&key("a"), "two", None).await.unwrap();
    node.stop().await;
}
