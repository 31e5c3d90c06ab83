use e2e::{Client, Node, Process, client::tunnel_command, soon, target::Target, visit::get};
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::time::interval;

/// Visits until the answer has this status.
async fn until(node: &Node, host: &str, status: u16) -> Option<()> {
    let mut pace = interval(Duration::from_millis(50));
    let visits = async {
        loop {
            pace.tick().await;
            if get(node, host, "/", &[]).await?.status == status {
                return Some(());
            }
        }
    };
    soon("the status", visits).await
}

#[tokio::test]
async fn a_client_with_one_link_is_reached_by_visitors_of_every_node_and_again_after_a_crash() {
    let target = Target::http().await;
    let mut first = Node::start().await;
    let (second, third) = (first.another().await, first.another().await);
    let mut client = Client::publish_on_one_link(&first, &target.url()).await;
    for node in [&first, &second, &third] {
        for arguments in [["--http1.1", "-d", "body"].as_slice(), &["--http2"]] {
            let Some(answer) = get(node, client.host(), "/", arguments).await else { return };
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    // The node dies, and its client with it: the route that it leaves behind leads nowhere.
    client.process.kill().await;
    first.process.kill().await;
    let Some(()) = until(&third, client.host(), 503).await else { return };
    first.start_again().await;
    for node in [&second, &third] {
        let Some(()) = until(node, client.host(), 503).await else { return };
    }
    client.start_again().await;
    for node in [&first, &second, &third] {
        let Some(()) = until(node, client.host(), 200).await else { return };
    }
}

#[tokio::test]
async fn when_a_node_is_killed_visitors_of_other_gateways_lose_nothing() {
    let target = Target::http().await;
    let mut first = Node::start().await;
    let (second, third) = (first.another().await, first.another().await);
    let one = Client::publish_on_one_link(&first, &target.url()).await;
    let label = one.host().split('.').next().expect("a label");
    let text = fs::read_to_string(one.config()).expect("the file is readable");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("client.yaml");
    // The same identity and hostname, linked elsewhere.
    fs::write(&config, text.replace(&first.apex(), &second.apex())).expect("the folder is writable");
    let twin = Process::start(tunnel_command(&config, &second.ca()));
    twin.line("the tunnel", |line| line.contains(label)).await;
    // Both ways are known, and in use.
    for _ in 0..10 {
        let Some(answer) = get(&third, one.host(), "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    first.process.kill().await;
    let mut times = Vec::new();
    for arguments in [["-d", "body"].as_slice(), &[], &["--http2"], &["-d", "body"], &[], &["-d", "body"], &[]] {
        let start = Instant::now();
        let Some(answer) = get(&third, one.host(), "/", arguments).await else { return };
        assert_eq!(answer.status, 200, "{arguments:?} after {times:?}: {answer:?}");
        times.push(start.elapsed());
    }
    println!("{times:?}");
}
