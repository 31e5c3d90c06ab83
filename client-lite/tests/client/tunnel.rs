//! Links and what is said on them: registration, names, publishing, reconnecting.

use crate::{
    fake_node::{Authority, Behaviour, DEADLINE, FakeNode, Seen},
    running::Client,
};
use client_lite::Event;
use quinn::VarInt;
use specter_wire::error::ErrorCode;
use std::fs;
use tokio::time::timeout;

#[tokio::test]
async fn a_first_connection_registers_completes_the_file_and_publishes() {
    let mut node = FakeNode::start(Behaviour { work_bits: 8, ..Behaviour::default() }).await;
    let mut client = Client::start(
        &node,
        "tunnels:\n  # the shell\n  - target: tcp://127.0.0.1:22 # home\n  - {target: 'http://127.0.0.1:5173'}\n",
    );
    let first = client.published().await;
    assert_eq!(first, ("tcp://claimed-name-001.localhost".to_owned(), "tcp://127.0.0.1:22".to_owned()));
    assert_eq!(client.published().await.0, "https://claimed-name-002.localhost");
    let seen = node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert!(matches!(seen[0], Seen::Hello { certificate: false, .. }));
    assert_eq!(seen[1..4], [Seen::Registered, Seen::Listed, Seen::Claimed(2)]);

    let text = client.text();
    for kept in [
        "# mine\nversion: 2\napex: localhost:",
        "# near\ncertificate: |\n  -----BEGIN CERTIFICATE-----\n",
        "\nprivKey: |\n  -----BEGIN PRIVATE KEY-----\n",
        "caFile: ca.crt\ntunnels:\n  # the shell\n  - target: tcp://127.0.0.1:22 # home\n    hostname: claimed-name-001\n",
        "  - {target: 'http://127.0.0.1:5173', hostname: claimed-name-002}\n",
    ] {
        assert!(text.contains(kept), "{kept:?} is not in\n{text}");
    }
    let (folder, outcome) = client.stop().await;
    outcome.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");

    // The second start has everything, leaves the file alone, and is known to be the same client.
    let mut client = Client::start_in(folder);
    client.published().await;
    let Seen::Hello { instance: first_instance, .. } = seen[0] else { panic!("{seen:?}") };
    let seen = node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert!(matches!(seen[1..], [Seen::Published(_)]), "{seen:?}");
    assert_eq!(seen[0], Seen::Hello { certificate: true, instance: first_instance });
    assert_eq!(client.text(), text);
}

#[tokio::test]
async fn a_file_is_secret_after_it_was_written_and_a_link_to_it_stays_a_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let node = FakeNode::start(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.crt"), &node.ca_pem).unwrap();
    let text = format!("version: 2\napex: localhost:{}\ncaFile: ca.crt\ntunnels: [{{target: tcp://h:1}}]", node.port);
    fs::write(folder.path().join("real.yaml"), text).unwrap();
    symlink("real.yaml", folder.path().join("client.yaml")).unwrap();
    let mut client = Client::start_in(folder);
    client.published().await;
    assert!(fs::symlink_metadata(client.path()).unwrap().is_symlink());
    assert_eq!(fs::metadata(client.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(client.text().contains("hostname: claimed-name-001"));
}

#[tokio::test]
async fn a_read_only_file_ends_the_client_before_it_registers() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.crt"), &node.ca_pem).unwrap();
    let path = folder.path().join("client.yaml");
    let text = format!("version: 2\napex: localhost:{}\ncaFile: ca.crt\ntunnels: [{{target: tcp://h:1}}]", node.port);
    fs::write(&path, &text).unwrap();
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let client = Client::start_in(folder);
    let outcome = timeout(DEADLINE, client.task).await.unwrap().unwrap();
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("client.yaml cannot be written") && error.contains("make the file"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    // The next greeting is the one of this test's own client, so the first one never spoke.
    let mut other = Client::start(&node, "tunnels: [{target: 'tcp://h:1'}]\n");
    other.published().await;
    let seen = node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Hello { .. })).count(), 1);
}

#[tokio::test]
async fn unused_names_of_the_identity_are_taken_before_new_ones() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    node.own(&["old-name", "custom.example.com", "used-name"]);
    let mut client = Client::start(
        &node,
        "tunnels:\n- target: tcp://h:1\n- target: tcp://h:2\n  hostname: used-name\n- target: tcp://h:3\n",
    );
    let mut urls = Vec::new();
    for _ in 0..3 {
        urls.push(client.published().await.0);
    }
    assert_eq!(urls, ["tcp://old-name.localhost", "tcp://used-name.localhost", "tcp://claimed-name-001.localhost"]);
    let seen = node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert!(seen.contains(&Seen::Claimed(1)));
}

#[tokio::test]
async fn two_hundred_tunnels_are_published_in_four_batches() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let tunnels: String = (1..=200).map(|port| format!("  - target: tcp://127.0.0.1:{port}\n")).collect();
    let mut client = Client::start(&node, &format!("tunnels:\n{tunnels}"));
    for _ in 0..200 {
        client.published().await;
    }
    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < 200 {
        if let Seen::Published(names) = node.seen().await {
            batches.push(names.len());
        }
    }
    assert_eq!(batches, [64, 64, 64, 8]);
    assert_eq!(client.text().matches("hostname: claimed-name-").count(), 200);
}

#[tokio::test]
async fn a_lost_link_is_opened_again_and_publishes_again() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let mut client = Client::start(&node, "tunnels: [{target: 'tcp://127.0.0.1:1'}]\n");
    let first = client.published().await;
    node.connection().await.close(VarInt::from_u32(2), b"");
    assert!(matches!(client.event().await, Event::Disconnected { .. }));
    assert_eq!(client.published().await, first);

    node.go_away();
    node.connection().await.close(VarInt::from_u32(0), b"");
    for _ in 0..3 {
        assert!(matches!(client.event().await, Event::Disconnected { .. }));
    }
    node.come_back();
    assert_eq!(client.published().await, first);
    node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    let (_, outcome) = client.stop().await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_link_that_was_replaced_comes_back_as_another_instance() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let mut client = Client::start(&node, "tunnels: [{target: 'tcp://127.0.0.1:1'}]\n");
    client.published().await;
    let Seen::Hello { instance: first, .. } = node.seen().await else { panic!("no greeting") };
    node.connection().await.close(VarInt::from_u32(1), b"replaced");
    client.published().await;
    let seen = node.seen_until(|seen| matches!(seen, Seen::Hello { .. })).await;
    let Some(Seen::Hello { instance: second, .. }) = seen.last() else { panic!("no greeting") };
    assert_ne!(first, *second);
}

#[tokio::test]
async fn a_certificate_that_the_node_refuses_costs_no_hostname() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let mut client = Client::start(&node, "tunnels: [{target: 'tcp://127.0.0.1:1'}]\n");
    let first = client.published().await;
    let (folder, _) = client.stop().await;
    // A certificate of another cluster for the same key cannot be told apart by the client.
    let port = node.port;
    node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    let owned = node.owned();
    drop(node);
    let mut other = FakeNode::start(Behaviour { distrust_clients: true, ..Behaviour::default() }).await;
    other.own(&owned.iter().map(String::as_str).collect::<Vec<_>>());
    let path = folder.path().join("client.yaml");
    let text = fs::read_to_string(&path).unwrap().replace(&port.to_string(), &other.port.to_string());
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("ca.crt"), &other.ca_pem).unwrap();
    let mut client = Client::start_in(folder);
    assert_eq!(client.published().await, first);
    let seen = other.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert!(seen.contains(&Seen::Registered), "{seen:?}");
}

#[tokio::test]
async fn an_old_certificate_is_renewed_at_the_next_connection() {
    let mut node = FakeNode::start(Behaviour { old_certificates: true, ..Behaviour::default() }).await;
    let mut client = Client::start(&node, "tunnels: [{target: 'tcp://127.0.0.1:1'}]\n");
    client.published().await;
    let before = client.text();
    let (folder, _) = client.stop().await;
    node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    let mut client = Client::start_in(folder);
    client.published().await;
    let seen = node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    assert!(seen.contains(&Seen::Renewed) && !seen.contains(&Seen::Registered), "{seen:?}");
    assert_ne!(client.text(), before);
}

#[tokio::test]
async fn refused_tunnels_are_told_and_those_that_time_may_mend_are_tried_again() {
    let node = FakeNode::start(Behaviour::default()).await;
    node.own(&["late-name", "good-name"]);
    node.behave(|behaviour| {
        behaviour.refuse.insert("late-name".to_owned(), ErrorCode::Unavailable);
    });
    let mut client = Client::start(
        &node,
        "tunnels:\n- {target: 'tcp://h:1', hostname: late-name}\n- {target: 'tcp://h:2', hostname: foreign-name}\n- {target: 'tcp://h:3', hostname: good-name.localhost}\n",
    );
    let Event::Refused { reason, .. } = client.event().await else { panic!("not refused") };
    assert!(reason.contains("late-name") && reason.contains("trying again"), "{reason}");
    let Event::Refused { reason, .. } = client.event().await else { panic!("not refused") };
    assert!(reason.contains("foreign-name") && reason.contains("belongs to somebody else"), "{reason}");
    assert_eq!(client.published().await.0, "tcp://good-name.localhost");
    node.behave(|behaviour| behaviour.refuse.clear());
    assert_eq!(client.published().await.0, "tcp://late-name.localhost");
}

#[tokio::test]
async fn a_node_that_is_not_trusted_is_told_as_such() {
    let node = FakeNode::start(Behaviour::default()).await;
    let other = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.crt"), other.ca_pem).unwrap();
    let text = format!("version: 2\napex: localhost:{}\ncaFile: ca.crt\ntunnels: [{{target: 'tcp://h:1'}}]", node.port);
    fs::write(folder.path().join("client.yaml"), &text).unwrap();
    let mut client = Client::start_in(folder);
    let Event::Disconnected { reason, .. } = client.event().await else { panic!("no event") };
    assert!(reason.contains("is not trusted"), "{reason}");
    assert_eq!(client.text(), text);
}
