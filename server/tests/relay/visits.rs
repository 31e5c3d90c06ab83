use crate::cluster::{Client, Cluster, http_target, mirror_target, soon, until};
use std::time::Duration;
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
    const BYTES: usize = 100_000_000;
    let stream = cluster.connect(1, &client.host).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let start = std::time::Instant::now();
    let up = async {
        let chunk = vec![b'v'; 1 << 20];
        let mut left = BYTES;
        while left > 0 {
            let length = left.min(chunk.len());
            writer.write_all(&chunk[..length]).await.expect("written");
            left -= length;
        }
        writer.shutdown().await.expect("an end");
    };
    soon("the bytes up", up).await;
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0;
    while let read @ 1.. = soon("bytes down", reader.read(&mut buffer)).await.expect("a clean end") {
        assert!(buffer[..read].iter().all(|byte| *byte == b'm'));
        count += read;
    }
    assert_eq!(count, BYTES);
    println!("100 MB up and 100 MB down took {:?}", start.elapsed());
}

#[tokio::test]
async fn when_a_node_dies_the_link_to_another_is_used_within_half_a_second() {
    let mut cluster = Cluster::start(4).await;
    let target = http_target("hello").await;
    let tunnels = format!("- target: http://{target}\n");
    let first = Client::start(cluster.client_config("client.yaml", 0, &tunnels)).await;
    let config = std::fs::read_to_string(cluster.folder.path().join("client.yaml")).expect("the file");
    let second_port = cluster.nodes[1].tcp.port().to_string();
    let first_port = cluster.nodes[0].tcp.port().to_string();
    let twin = cluster.folder.path().join("twin.yaml");
    std::fs::write(&twin, config.replace(&first_port, &second_port)).expect("written");
    let second = Client::start(twin).await;
    assert_eq!(first.host, second.host);
    // Both ways are known at the other nodes, and their connections are there.
    for _ in 0..20 {
        assert_eq!(cluster.get(2, &first.host).await.status, 200);
        assert_eq!(cluster.get(3, &first.host).await.status, 200);
    }
    cluster.nodes[0].kill();
    let mut slowest = Duration::ZERO;
    for method in ["GET", "POST", "GET", "GET", "POST", "GET"] {
        for node in 2..4 {
            let answer = cluster.ask(node, &first.host, method).await;
            assert_eq!(answer.status, 200, "{method} at node {node}");
            slowest = slowest.max(answer.took);
        }
    }
    println!("the slowest answer took {slowest:?}");
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
}

#[tokio::test]
async fn a_tunnel_that_moved_to_another_node_is_found_there() {
    let cluster = Cluster::start(3).await;
    let target = http_target("hello").await;
    let mut client =
        Client::start(cluster.client_config("client.yaml", 0, &format!("- target: http://{target}\n"))).await;
    assert_eq!(cluster.get(2, &client.host).await.status, 200);
    client.kill();
    let config = std::fs::read_to_string(cluster.folder.path().join("client.yaml")).expect("the file");
    let (old, new) = (cluster.nodes[0].tcp.port().to_string(), cluster.nodes[1].tcp.port().to_string());
    let moved = cluster.folder.path().join("moved.yaml");
    std::fs::write(&moved, config.replace(&old, &new)).expect("written");
    let moved = Client::start(moved).await;
    assert_eq!(moved.host, client.host);
    let found = until("the new place", || cluster.get(2, &moved.host), |answer| answer.status == 200).await;
    assert_eq!(found.body, "hello");
}
