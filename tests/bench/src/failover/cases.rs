//! What is done to nodes and clients on one machine.

use super::{
    Setting,
    scene::{First, SETTLE, Scene},
    table::Row,
};
use crate::{Outcome, procfs};
use cluster::load::{Seen, sweep};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Visitors are watched this long after each event.
const WATCH: Duration = Duration::from_secs(8);

/// A node is down this long before it comes back.
const DOWN: Duration = Duration::from_secs(8);

/// All nodes are down this long.
const ALL_DOWN: Duration = Duration::from_secs(2);

/// A node stands still for this long: longer than it takes to be declared dead.
const STILL: Duration = Duration::from_secs(15);

/// SIGTERM of a node.
pub(super) async fn stop(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let mut scene = Scene::start(setting, First::Spread).await?;
    let (load, calm) = scene.load(setting).await?;
    let mut rows = vec![calm];
    for index in [2, 0] {
        load.forget();
        let took = scene.nodes.nodes[index].stop().await;
        sleep(DOWN).await;
        let note = match &took {
            Ok(took) => format!("stopped after {} ms", took.as_millis()),
            Err(error) => error.to_string(),
        };
        rows.push(Row::of(&format!("SIGTERM of node {index}"), &Seen::sum(&load.report())).note(&note));
        took?;
        scene.nodes.nodes[index].start().await?;
        sleep(WATCH).await;
        rows.push(Row::of(&format!("node {index} comes back"), &Seen::sum(&load.report())));
    }
    Ok(rows)
}

/// SIGTERM and start of each node after the other.
pub(super) async fn rolling(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let mut scene = Scene::start(setting, First::Spread).await?;
    let (load, calm) = scene.load(setting).await?;
    let mut longest = Duration::ZERO;
    for index in 0..scene.nodes.nodes.len() {
        let node = &mut scene.nodes.nodes[index];
        longest = longest.max(node.stop().await?);
        node.start().await?;
        // As an operator does: the next one when this one serves.
        sweep(&[scene.nodes.nodes[index].address], &scene.hosts, &scene.nodes.authority, SETTLE).await?;
    }
    sleep(WATCH).await;
    let row = Row::of("rolling restart of all nodes", &Seen::sum(&load.report()));
    Ok(vec![calm, row.note(&format!("the slowest stopped after {} ms", longest.as_millis()))])
}

/// SIGKILL of some nodes at once, and their return.
pub(super) async fn kill(setting: &Setting<'_>, what: &str, victims: &[usize], first: First) -> Outcome<Vec<Row>> {
    let mut scene = Scene::start(setting, first).await?;
    let (load, calm) = scene.load(setting).await?;
    for index in victims {
        scene.nodes.nodes[*index].kill().await?;
    }
    sleep(DOWN).await;
    let seen = load.report();
    let (lost, others): (Vec<_>, Vec<_>) = seen.iter().enumerate().partition(|(index, _)| victims.contains(index));
    let sum = |some: Vec<(usize, &Seen)>| Seen::sum(some.into_iter().map(|(_, seen)| seen));
    let mut rows = vec![
        calm,
        Row::of(&format!("{what}, visitors elsewhere"), &sum(others)),
        Row::of(&format!("{what}, its own visitors"), &sum(lost)),
    ];
    for index in victims {
        scene.nodes.nodes[*index].spawn()?;
    }
    for index in victims {
        scene.nodes.nodes[*index].ready().await?;
    }
    // Without a sweep, whose hundreds of handshakes at once would be what visitors wait for.
    sleep(WATCH).await;
    rows.push(Row::of(&format!("{what}, started again"), &Seen::sum(&load.report())));
    Ok(rows)
}

/// A node stands still and goes on.
pub(super) async fn freeze(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let scene = Scene::start(setting, First::Spread).await?;
    let (load, calm) = scene.load(setting).await?;
    let victim = 2;
    scene.nodes.nodes[victim].pause().await?;
    sleep(STILL).await;
    let seen = load.report();
    scene.nodes.nodes[victim].resume().await?;
    let others = Seen::sum(seen.iter().enumerate().filter(|(index, _)| *index != victim).map(|(_, seen)| seen));
    let took = scene.sweep(SETTLE).await;
    sleep(WATCH).await;
    let after = Seen::sum(&load.report());
    Ok(vec![
        calm,
        Row::of("a node frozen for 15 s, visitors elsewhere", &others),
        Row::of("a frozen node goes on", &after).recovered(took),
    ])
}

/// SIGKILL of all nodes, started again with their data.
pub(super) async fn kill_all(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let mut scene = Scene::start(setting, First::Spread).await?;
    for node in &mut scene.nodes.nodes {
        node.kill().await?;
    }
    sleep(ALL_DOWN).await;
    for node in &mut scene.nodes.nodes {
        node.spawn()?;
    }
    let start = Instant::now();
    for node in &mut scene.nodes.nodes {
        node.ready().await?;
    }
    let ready = start.elapsed();
    let served = scene.sweep(SETTLE).await.map(|_| start.elapsed());
    let memory: Vec<String> = scene
        .nodes
        .nodes
        .iter()
        .filter_map(|node| node.running().ok())
        .map(|process| format!("{}", procfs::memory(process.id()).resident_kib / 1024))
        .collect();
    let note = format!("nodes ready after {} ms, hold {} MiB", ready.as_millis(), memory.join(", "));
    Ok(vec![Row::timed("all nodes killed and started again", served).note(&note)])
}

/// SIGKILL of a client, started again.
pub(super) async fn kill_client(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let mut scene = Scene::start(setting, First::Spread).await?;
    let others: Vec<String> = scene.clients[1..].iter().flat_map(|client| client.hosts.clone()).collect();
    let load = {
        let args = setting.args;
        let pace = cluster::load::Pace { visitors: args.visitors, every: Duration::from_millis(args.every_ms) };
        cluster::load::Load::start(&scene.nodes.addresses(), &others, &scene.nodes.authority, pace)?
    };
    sleep(WATCH).await;
    load.forget();
    let gateways = scene.nodes.addresses();
    let authority = scene.nodes.authority.clone();
    let client = &mut scene.clients[0];
    client.kill().await?;
    let start = Instant::now();
    let published = client.start_again().await?;
    let served = sweep(&gateways, &client.hosts, &authority, SETTLE).await.map(|_| start.elapsed());
    let seen = Seen::sum(&load.report());
    Ok(vec![
        Row::timed("a client killed and started again", served)
            .note(&format!("published after {} ms", published.as_millis())),
        Row::of("a client killed, other clients' visitors", &seen),
    ])
}
