//! What idle clients and idle visitors cost in memory.

use crate::{
    Outcome,
    http1::{BUFFER_BYTES, Connection, Requests},
    links,
    path::Path as Way,
    procfs::{Memory, memory},
    programs::Programs,
    specter::{Client, Node},
};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::time::sleep;

/// What was measured. Everything per piece is growth divided by the count.
#[derive(Default, Debug, serde::Serialize)]
pub(crate) struct Idle {
    /// A node that has seen nobody.
    pub(crate) node: Memory,
    /// A client with one link and [`crate::specter::TUNNELS`] tunnels, none visited.
    pub(crate) client: Memory,
    pub(crate) links: usize,
    /// Node, per link registered.
    pub(crate) link_kib: f64,
    /// Node, per link registered that serves one tunnel.
    pub(crate) tunnel_link_kib: f64,
    pub(crate) visitors: usize,
    /// Node and client, per visitor of each path, after one small request.
    pub(crate) visitor_kib: Vec<(&'static str, f64, f64)>,
}

/// Links and visitors before anything is counted: what is made once is made.
const WARM_UP: usize = 32;

/// Timers of a burst, such as delayed acknowledgements, are over after this long.
const SETTLE: Duration = Duration::from_millis(1500);

/// Measures with processes of its own, so that nothing came before.
pub(crate) async fn measure(
    programs: &Programs,
    folder: &Path,
    target: (u32, SocketAddr),
    (links, visitors): (usize, usize),
) -> Outcome<Idle> {
    let mut idle = Idle { links, visitors, ..Idle::default() };
    idle_links(&mut idle, programs, &folder.join("links")).await?;
    for index in 0..2 {
        // What one kind of visitor leaves free, the other would use again: each gets a new node and client.
        let folder = folder.join(format!("visitors-{index}"));
        let node = Node::start(programs, &folder).await?;
        let client = node.client(programs, &folder, target.1).await?;
        sleep(SETTLE).await;
        idle.client = memory(client.process.id());
        let way = &node.paths(&client, target.0)[index];
        let (node_kib, client_kib) = idle_visitors(way, &node, &client, visitors).await?;
        idle.visitor_kib.push((way.name, node_kib, client_kib));
    }
    Ok(idle)
}

async fn idle_links(idle: &mut Idle, programs: &Programs, folder: &Path) -> Outcome<()> {
    let node = Node::start(programs, folder).await?;
    let process = node.process.id();
    sleep(SETTLE).await;
    idle.node = memory(process);
    let mut warm = links::open(node.address, &node.authority, WARM_UP).await?;
    links::publish(&mut warm).await?;
    sleep(SETTLE).await;
    let before = memory(process).resident_kib;
    let mut held = links::open(node.address, &node.authority, idle.links).await?;
    sleep(SETTLE).await;
    idle.link_kib = growth(before, memory(process).resident_kib, idle.links);
    links::publish(&mut held).await?;
    sleep(SETTLE).await;
    idle.tunnel_link_kib = growth(before, memory(process).resident_kib, idle.links);
    Ok(())
}

async fn idle_visitors(way: &Way, node: &Node, client: &Client, count: usize) -> Outcome<(f64, f64)> {
    let processes = [node.process.id(), client.process.id()];
    let warm = open(way, WARM_UP).await?;
    sleep(SETTLE).await;
    let before = processes.map(|process| memory(process).resident_kib);
    let held = open(way, count).await?;
    sleep(SETTLE).await;
    let after = processes.map(|process| memory(process).resident_kib);
    drop((warm, held));
    Ok((growth(before[0], after[0], count), growth(before[1], after[1], count)))
}

async fn open(way: &Way, count: usize) -> Outcome<Vec<Connection>> {
    let (visitors, requests) = (way.visitors(false)?, Requests::to(way));
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(&visitors, way).await?;
        connection.exchange(&requests.small, &mut buffer).await?;
        held.push(connection);
    }
    Ok(held)
}

fn growth(before_kib: u64, after_kib: u64, count: usize) -> f64 {
    after_kib.saturating_sub(before_kib) as f64 / count.max(1) as f64
}
