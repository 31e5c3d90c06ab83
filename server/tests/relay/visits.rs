use crate::cluster::{Client, Cluster, http_target, mirror_target, moved, soon, until};
use specter_server::status::{self, StatusError, recover};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn visitors_of_every_node_reach_a_client_that_is_linked_to_one() {
    let cluster = Cluster::start(3).await;
    let target = http_target("hello").await;
    let client = Client::start(cluster.client_config("http.yaml", 0, &format!("- target: http://{target}\n"))).await;
    for node in 0..3 {
        for method in ["GET", "POST"] {
            let answer = cluster.ask(node, &client.host, method).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{method} at node {node}");
            println!("{method} at node {node} took {:?}", answer.took);
        }
    }
    let unknown = cluster.get(1, "no-such-name.localhost").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn raw_bytes_pass_two_nodes_with_an_end_in_each_direction() {
    let cluster = Cluster::start(2).await;
    let target = mirror_target().await;
    let client = Client::start(cluster.client_config("raw.yaml", 0, &format!("- target: tcp://{target}\n"))).await;
    // More than all windows on the way together.
    const BYTES: usize = 40_000_000;
    let stream = cluster.connect(1, &client.host).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let start = std::time::Instant::now();
    let chunk = vec![b'v'; 1 << 20];
    let mut left = BYTES;
    while left > 0 {
        let length = left.min(chunk.len());
        soon("bytes up", writer.write_all(&chunk[..length])).await.expect("written");
        left -= length;
    }
    soon("the end", writer.shutdown()).await.expect("an end");
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0;
    while let read @ 1.. = soon("bytes down", reader.read(&mut buffer)).await.expect("a clean end") {
        assert!(buffer[..read].iter().all(|byte| *byte == b'm'));
        count += read;
    }
    assert_eq!(count, BYTES);
    println!("{BYTES} bytes up and down took {:?}", start.elapsed());
}

/// Clients of one identity, one linked to node 0 and one to node 1.
pub(crate) async fn twins(cluster: &Cluster) -> (Client, Client) {
    twins_of(cluster, http_target("first").await, http_target("second").await).await
}

pub(crate) async fn twins_of(cluster: &Cluster, first: SocketAddr, second: SocketAddr) -> (Client, Client) {
    let one = Client::start(cluster.client_config("one.yaml", 0, &format!("- target: http://{first}\n"))).await;
    let path = moved(cluster, ("one.yaml", 0), ("two.yaml", 1));
    let text = std::fs::read_to_string(&path).expect("the file");
    std::fs::write(&path, text.replace(&first.to_string(), &second.to_string())).expect("written");
    let two = Client::start(path).await;
    assert_eq!(one.host, two.host);
    (one, two)
}

#[tokio::test]
async fn visitors_spread_over_the_clients_of_one_identity() {
    let cluster = Cluster::start(3).await;
    let (one, _two) = twins(&cluster).await;
    for body in ["first", "second"] {
        until(body, || cluster.get(2, &one.host), |answer| answer.body == body).await;
    }
    // A node's own link is nearest.
    for (node, body) in [(0, "first"), (1, "second")] {
        for _ in 0..4 {
            assert_eq!(cluster.get(node, &one.host).await.body, body);
        }
    }
}

#[tokio::test]
async fn when_a_node_stands_still_visitors_go_to_the_other_whatever_they_ask() {
    let mut cluster = Cluster::start(4).await;
    let (one, _two) = twins(&cluster).await;
    for node in [2, 3] {
        for body in ["first", "second"] {
            until(body, || cluster.get(node, &one.host), |answer| answer.body == body).await;
        }
    }
    cluster.nodes[0].freeze();
    let mut times = Vec::new();
    for method in ["POST", "GET", "GET", "POST", "GET", "GET", "POST", "GET", "GET"] {
        for node in [2, 3] {
            let answer = cluster.ask(node, &one.host, method).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "second"), "{method} at node {node}");
            times.push(answer.took);
        }
    }
    println!("{times:?}");
}

#[tokio::test]
async fn when_nobody_serves_a_name_any_more_visitors_are_told_so() {
    let cluster = Cluster::start(3).await;
    let target = http_target("hello").await;
    let config = cluster.client_config("client.yaml", 0, &format!("- target: http://{target}\n"));
    let mut client = Client::start(config).await;
    assert_eq!(cluster.get(2, &client.host).await.status, 200);
    client.stop().await;
    for node in 0..3 {
        let gone = until("the end", || cluster.get(node, &client.host), |answer| answer.status == 503).await;
        println!("at node {node} after {:?}", gone.took);
    }
}

#[tokio::test]
async fn a_node_that_stops_in_order_loses_no_request_of_other_gateways() {
    let mut cluster = Cluster::start(4).await;
    let (one, _two) = twins(&cluster).await;
    for body in ["first", "second"] {
        until(body, || cluster.get(2, &one.host), |answer| answer.body == body).await;
    }
    let mut node = cluster.nodes.remove(0);
    let start = std::time::Instant::now();
    let stopping = tokio::spawn(async move {
        node.stop().await;
        start.elapsed()
    });
    let mut count = 0;
    while !stopping.is_finished() {
        for method in ["GET", "POST"] {
            let answer = cluster.ask(1, &one.host, method).await;
            assert_eq!(answer.status, 200, "{method} number {count}: {answer:?}");
            count += 1;
        }
    }
    println!("{count} requests while it stopped for {:?}", stopping.await.expect("no panic"));
    assert!(count > 0);
}

#[tokio::test]
async fn a_tunnel_that_moved_to_another_node_is_found_there() {
    let cluster = Cluster::start(3).await;
    let target = http_target("hello").await;
    let mut client =
        Client::start(cluster.client_config("client.yaml", 0, &format!("- target: http://{target}\n"))).await;
    assert_eq!(cluster.get(2, &client.host).await.status, 200);
    client.kill();
    let there = Client::start(moved(&cluster, ("client.yaml", 0), ("moved.yaml", 1))).await;
    assert_eq!(there.host, client.host);
    let found = until("the new place", || cluster.get(2, &there.host), |answer| answer.status == 200).await;
    assert_eq!(found.body, "hello");
}

#[tokio::test]
async fn invented_names_are_unknown_at_once_however_many() {
    let cluster = Cluster::start(2).await;
    let mut times = Vec::new();
    // A node that has not joined yet cannot tell.
    until("the store", || cluster.get(1, "invented.localhost"), |answer| answer.status == 404).await;
    for number in 0..200 {
        let answer = cluster.get(1, &format!("invented-{number}.localhost")).await;
        assert_eq!(answer.status, 404, "{answer:?}");
        times.push(answer.took);
    }
    times.sort();
    println!("median {:?}, longest {:?}", times[100], times[199]);
}

/// What a command prints; nothing if a busy node answers too late.
async fn told(command: impl FnOnce(&mut Vec<u8>) -> Result<(), StatusError> + Send + 'static) -> String {
    let run = move || {
        let mut text = Vec::new();
        command(&mut text).map(|()| String::from_utf8(text).expect("UTF-8")).unwrap_or_default()
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

#[tokio::test]
async fn a_node_whose_others_are_gone_for_good_goes_on_alone_when_it_is_told() {
    let mut cluster = Cluster::start(3).await;
    let target = http_target("hello").await;
    let tunnel = format!("- target: http://{target}\n");
    let config = cluster.client_config("before.yaml", 0, &tunnel);
    let mut before = Client::start(config.clone()).await;
    let data_dir = cluster.nodes[0].data_dir.clone();
    let status = || {
        let task = status::Task { data_dir: data_dir.clone(), json: false };
        told(move |text| status::run(&task, text))
    };
    let recover = |accept_loss| {
        let task = recover::Task { data_dir: data_dir.clone(), json: false, accept_loss };
        told(move |text| recover::run(&task, text))
    };
    let is_whole =
        |text: &String| text.contains("other nodes: 2") && text.contains(" 0 with too few replicas, 0 changing");
    until("each slot to have three replicas", status, is_whole).await;
    let nothing = |text: &String| text.contains("none lacks a majority. Nothing was changed");
    until("a refusal while all live", || recover(true), nothing).await;
    for number in [1, 2] {
        cluster.nodes[number].kill();
    }
    let asked = until("the loss to be noticed", || recover(false), |text| text.contains("--accept-loss")).await;
    assert!(asked.contains("Nothing was changed") && asked.contains("may never be started again"), "{asked}");
    let after = async || {
        recover(true).await;
        status().await
    };
    until("every slot to be led", after, |text| text.contains(", 0 without a leader")).await;
    // What needs a majority works again, with what this node had: the name's owner among it.
    before.stop().await;
    let again = Client::start(config).await;
    assert_eq!(again.host, before.host);
    until("visitors", || cluster.get(0, &again.host), |answer| answer.status == 200).await;
    Client::start(cluster.client_config("after.yaml", 0, &tunnel)).await;
}
