//! Thousands of clients that come back at once, all in this process: each has a key, a hostname and one link, and serves
//! a page under its name.

use super::{Setting, scene::SETTLE, table::Row};
use crate::{
    Outcome,
    links::{Link, config, seed},
    procfs,
};
use cluster::{
    load::sweep,
    nodes::{Nodes, Plan},
    target::answer,
};
use quinn::{ClientConfig, Connection, Endpoint};
use specter_wire::{
    codec::{self, PREFIX_BYTES},
    stream::CONNECTED,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// Sockets that the clients share.
const SOCKETS: usize = 32;

/// Clients that register at a time before anything is broken.
const FIRST: usize = 32;

/// Hostnames that are visited at every gateway at the end.
const SAMPLES: usize = 20;

/// A client may try for this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a client tries to register.
const TURNS: usize = 100;

/// Longest header of a stream that is read.
const HEADER_BYTES: usize = 4096;

/// A client of the crowd.
#[derive(Clone)]
struct Member {
    seed: [u8; 32],
    host: String,
}

/// What members share.
#[derive(Clone)]
struct World {
    endpoints: Vec<Endpoint>,
    config: ClientConfig,
    nodes: Vec<SocketAddr>,
    attempts: Arc<AtomicUsize>,
}

/// Starts nodes and a crowd, kills all nodes, and lets the crowd come back.
pub(super) async fn run(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let mut plan = Plan::loopback(&setting.programs.server, setting.folder, setting.args.nodes);
    plan.log = "warn";
    let mut nodes = Nodes::start(&plan).await?;
    let endpoints = (0..SOCKETS)
        .map(|_| Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))))
        .collect::<std::io::Result<Vec<_>>>()?;
    let config = config(&nodes.authority)?;
    let world = World { endpoints, config, nodes: nodes.addresses(), attempts: Arc::default() };

    let start = Instant::now();
    let mut serving = JoinSet::new();
    let members = world.register(setting.args.crowd, &mut serving).await?;
    let registered = start.elapsed();
    let hosts: Vec<String> = members
        .iter()
        .step_by((members.len() / SAMPLES).max(1))
        .map(|member| format!("{}.{}", member.host, cluster::nodes::APEX))
        .collect();
    sweep(&world.nodes, &hosts, &nodes.authority, SETTLE).await?;
    let before = memory(&nodes);

    for node in &mut nodes.nodes {
        node.kill().await?;
    }
    serving.shutdown().await;
    nodes.start_all().await?;
    let start = Instant::now();
    world.attempts.store(0, Ordering::Relaxed);
    let mut coming = JoinSet::new();
    for (index, member) in members.iter().cloned().enumerate() {
        let world = world.clone();
        coming.spawn(async move { timeout(PATIENCE, world.come_back(index, &member)).await });
    }
    let (mut back, mut late) = (Vec::new(), 0);
    while let Some(came) = coming.join_next().await {
        match came? {
            Ok(connection) => {
                back.push(start.elapsed());
                serving.spawn(serve(connection));
            }
            Err(_) => late += 1,
        }
    }
    let served = sweep(&world.nodes, &hosts, &nodes.authority, SETTLE).await.map(|_| start.elapsed());
    let middle = back.get(back.len() / 2).copied().unwrap_or_default();
    let note = format!(
        "registered within {} ms; half back after {} ms, the last after {} ms, {late} never, {} attempts; \
         nodes held {before} MiB before and {} MiB after (peaks in brackets)",
        registered.as_millis(),
        middle.as_millis(),
        back.last().copied().unwrap_or_default().as_millis(),
        world.attempts.load(Ordering::Relaxed),
        memory(&nodes),
    );
    Ok(vec![Row::timed(&format!("{} clients come back at once", members.len()), served).note(&note)])
}

/// Clients try again apart from each other, as jitter does for real ones.
fn breath(index: usize) -> Duration {
    Duration::from_millis(100 + (index as u64 * 7919) % 400)
}

fn memory(nodes: &Nodes) -> String {
    let processes = nodes.nodes.iter().filter_map(|node| node.running().ok());
    let held = processes.map(|process| procfs::memory(process.id()));
    held.map(|memory| format!("{} ({})", memory.resident_kib >> 10, memory.peak_kib >> 10))
        .collect::<Vec<_>>()
        .join(", ")
}

impl World {
    async fn register(&self, count: usize, serving: &mut JoinSet<()>) -> Outcome<Vec<Member>> {
        let (mut members, mut coming) = (Vec::with_capacity(count), JoinSet::new());
        for index in 0..count {
            if coming.len() >= FIRST
                && let Some(came) = coming.join_next().await
            {
                let (member, connection) = came??;
                members.push(member);
                serving.spawn(serve(connection));
            }
            let world = self.clone();
            coming.spawn(async move { timeout(PATIENCE, world.first(index)).await? });
        }
        while let Some(came) = coming.join_next().await {
            let (member, connection) = came??;
            members.push(member);
            serving.spawn(serve(connection));
        }
        Ok(members)
    }

    /// Registers a client and gives it a hostname, as often as it takes.
    async fn first(&self, index: usize) -> Outcome<(Member, (Link, Connection))> {
        let seed = seed()?;
        let mut turn = index;
        loop {
            let come = async {
                let mut link = self.open(index, turn, seed).await?;
                let host = link.claim().await?;
                link.publish(&host).await?;
                let connection = link.connection();
                Outcome::Ok((Member { seed, host }, (link, connection)))
            };
            match come.await {
                Ok(came) => return Ok(came),
                Err(error) if turn > index + TURNS => return Err(error),
                Err(_) => turn += 1,
            }
            sleep(breath(index)).await;
        }
    }

    async fn open(&self, index: usize, turn: usize, seed: [u8; 32]) -> Outcome<Link> {
        let endpoint = self.endpoints[index % self.endpoints.len()].clone();
        Link::open(endpoint, self.config.clone(), self.nodes[turn % self.nodes.len()], seed).await
    }

    /// Tries one node after the other until it has its hostname back.
    async fn come_back(&self, index: usize, member: &Member) -> (Link, Connection) {
        for turn in index.. {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            if let Ok(mut link) = self.open(index, turn, member.seed).await
                && link.publish(&member.host).await.is_ok()
            {
                let connection = link.connection();
                return (link, connection);
            }
            sleep(breath(index)).await;
        }
        std::future::pending().await
    }
}

/// Serves visitors' streams for as long as the link lives.
async fn serve((link, connection): (Link, Connection)) {
    let mut streams = JoinSet::new();
    // Its end is that of the connection.
    streams.spawn(async move { drop(link.live().await) });
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        while streams.try_join_next().is_some() {}
        streams.spawn(async move {
            let answered = async {
                let mut prefix = [0; PREFIX_BYTES];
                receive.read_exact(&mut prefix).await?;
                let mut header = vec![0; codec::body_length(prefix, HEADER_BYTES)?];
                receive.read_exact(&mut header).await?;
                send.write_all(&[CONNECTED]).await?;
                answer(tokio::io::join(receive, send), &AtomicUsize::new(0)).await?;
                Outcome::Ok(())
            };
            // A stream that the node resets is the end of a visit like any other.
            drop(answered.await);
        });
    }
}
