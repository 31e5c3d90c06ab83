//! Links to several nodes at a time.

use crate::{
    fake_node::{Behaviour, DEADLINE, FakeNode, Seen, open},
    running::Client,
};
use client_lite::Event;
use quinn::Connection;
use specter_wire::{id::NodeId, link::Neighbour, stream::StreamKind};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UdpSocket},
    sync::watch,
    time::timeout,
};

const TUNNELS: &str = "tunnels: [{target: 'tcp://127.0.0.1:1'}, {target: 'tcp://127.0.0.1:2'}]\n";

fn is_published(seen: &Seen) -> bool {
    matches!(seen, Seen::Published(_))
}

/// Starts a client and waits for three links.
async fn three_links(nodes: &[FakeNode]) -> Client {
    let mut client = Client::start(&nodes[0], TUNNELS);
    client.published().await;
    client.links(3).await;
    client
}

#[tokio::test]
async fn three_links_come_up_with_one_registration_and_the_same_names() {
    let mut nodes = FakeNode::cluster(3, Behaviour { work_bits: 8, ..Behaviour::default() }).await;
    let mut client = Client::start(&nodes[0], TUNNELS);
    let mut urls = [client.published().await.0, client.published().await.0];
    urls.sort();
    assert_eq!(urls, ["tcp://claimed-name-001.localhost", "tcp://claimed-name-002.localhost"]);
    client.links(3).await;
    let mut seen = Vec::new();
    for node in &mut nodes {
        let here = node.seen_until(is_published).await;
        let names = ["claimed-name-001", "claimed-name-002"].map(str::to_owned).to_vec();
        assert_eq!(here.last(), Some(&Seen::Published(names)));
        seen.extend(here);
    }
    for (once, what) in [(Seen::Registered, "a registration"), (Seen::Claimed(2), "a claim"), (Seen::Listed, "a list")]
    {
        assert_eq!(seen.iter().filter(|seen| **seen == once).count(), 1, "{what}");
    }
    let instances: Vec<u64> = seen
        .iter()
        .filter_map(|seen| if let Seen::Hello { instance, .. } = seen { Some(*instance) } else { None })
        .collect();
    assert!(instances.iter().all(|instance| *instance == instances[0]), "{instances:?}");
    assert_eq!(client.text().matches("hostname: claimed-name-").count(), 2);
    let (_, outcome) = client.stop().await;
    outcome.unwrap();
}

#[tokio::test]
async fn as_many_links_as_the_file_says() {
    let nodes = FakeNode::cluster(3, Behaviour::default()).await;
    let mut client = Client::start(&nodes[0], &format!("links: 2\n{TUNNELS}"));
    loop {
        let event = timeout(DEADLINE, client.events.recv()).await.expect("an event in time").unwrap();
        if let Event::Links { up, wanted } = event
            && up == 2
        {
            assert_eq!(wanted, 2);
            break;
        }
    }
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_and_visitors_of_the_others_notice_nothing() {
    let mut nodes = FakeNode::cluster(4, Behaviour::default()).await;
    let mut client = three_links(&nodes).await;
    // The first node's link is the one that led.
    nodes[0].die();
    client.links(2).await;
    client.links(3).await;
    for node in &mut nodes[1..] {
        node.seen_until(is_published).await;
    }
    // Nothing is told again, since the tunnels never were without a link.
    while let Ok(event) = client.events.try_recv() {
        assert!(matches!(event, Event::Links { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_node_that_vanishes_is_noticed_by_its_silence() {
    let nodes = FakeNode::cluster(4, Behaviour::default()).await;
    let mut client = three_links(&nodes).await;
    nodes[0].vanish();
    client.links(2).await;
    client.links(3).await;
}

#[tokio::test]
async fn a_client_heals_although_the_apex_leads_to_a_dead_node() {
    let mut nodes = FakeNode::cluster(3, Behaviour::default()).await;
    let mut client = three_links(&nodes).await;
    nodes[0].die();
    client.links(2).await;
    for node in &mut nodes[1..] {
        node.go_away();
        node.close_links();
    }
    client.links(0).await;
    nodes[2].come_back();
    client.links(1).await;
}

#[tokio::test]
async fn a_draining_node_is_replaced_before_it_ends_and_serves_to_its_end() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let mut nodes = FakeNode::cluster(4, Behaviour::default()).await;
    let mut client = Client::start(&nodes[0], &format!("tunnels: [{{target: 'tcp://127.0.0.1:{port}'}}]\n"));
    client.published().await;
    client.links(3).await;
    let old = nodes[0].connection().await;
    nodes[0].drain();
    client.links(2).await;
    client.links(3).await;
    for node in &mut nodes[1..] {
        node.seen_until(is_published).await;
    }
    assert!(old.close_reason().is_none());
    let (_send, mut receive) = open(&old, "claimed-name-001", StreamKind::Raw, b"hello").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    accepted.write_all(b"bye").await.unwrap();
    drop(accepted);
    assert_eq!(&receive.read_to_end(10).await.unwrap()[1..], b"bye");
    nodes[0].die();
    let (_, outcome) = client.stop().await;
    outcome.unwrap();
}

#[tokio::test]
async fn garbage_about_neighbours_is_left_alone() {
    let nodes = FakeNode::cluster(3, Behaviour::default()).await;
    // Nobody, everybody, and a node under a false name.
    let nobody = |ip: [u8; 4], port| Neighbour { node: NodeId([9; 16]), address: SocketAddr::from((ip, port)).into() };
    let mut told = vec![nobody([0, 0, 0, 0], 443), nobody([224, 0, 0, 1], 443), nobody([127, 0, 0, 1], 0)];
    told.extend((1..12).map(|port| nobody([127, 0, 0, 1], port)));
    told.push(Neighbour { node: nodes[0].id, ..nodes[1].neighbour() });
    told.push(Neighbour { node: NodeId([8; 16]), ..nodes[0].neighbour() });
    nodes[0].name(told);
    let mut client = Client::start(&nodes[0], TUNNELS);
    client.published().await;
    nodes[0].name(vec![nodes[1].neighbour(), nodes[2].neighbour()]);
    client.links(3).await;
}

#[tokio::test]
async fn a_download_goes_on_when_the_clients_address_changes() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let mut node = FakeNode::start(Behaviour::default()).await;
    let (changes, relay) = relay(node.port).await;
    node.port = relay;
    let mut client = Client::start(&node, &format!("tunnels: [{{target: 'tcp://127.0.0.1:{port}'}}]\n"));
    client.published().await;
    let connection: Connection = node.connection().await;
    let before = connection.remote_address();
    let (_send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    let bytes = vec![5; 4_000_000];
    let half = bytes.len() / 2;
    let mut got = vec![0; half + 1];
    let (_, read) = tokio::join!(accepted.write_all(&bytes[..half]), receive.read_exact(&mut got));
    read.unwrap();
    changes.send_modify(|count| *count += 1);
    let (_, rest) = tokio::join!(
        async {
            accepted.write_all(&bytes[half..]).await.unwrap();
            accepted.shutdown().await.unwrap();
        },
        timeout(DEADLINE, receive.read_to_end(bytes.len()))
    );
    assert_eq!(rest.expect("in time").unwrap().len(), bytes.len() - half);
    assert_ne!(connection.remote_address(), before);
    assert!(client.events.try_recv().is_err(), "no link was lost");
}

/// Passes datagrams between a client and the node at a port of this machine. Each change gives the client another
/// address, as the node sees it.
async fn relay(port: u16) -> (watch::Sender<u32>, u16) {
    let inside = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let own_port = inside.local_addr().unwrap().port();
    let (changes, mut changed) = watch::channel(0);
    tokio::spawn(async move {
        let mut client = None;
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            outside.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            loop {
                // A datagram that is lost here is sent again.
                tokio::select! {
                    received = inside.recv_from(&mut up) => {
                        if let Ok((length, from)) = received {
                            client = Some(from);
                            outside.send(&up[..length]).await.ok();
                        }
                    }
                    received = outside.recv(&mut down) => {
                        if let (Ok(length), Some(client)) = (received, client) {
                            inside.send_to(&down[..length], client).await.ok();
                        }
                    }
                    change = changed.changed() => match change {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
        }
    });
    (changes, own_port)
}
