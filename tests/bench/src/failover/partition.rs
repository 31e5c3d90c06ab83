//! The nodes' network falls into two parts and is mended. Clients and visitors reach every node all the time.

use super::{
    Setting,
    scene::{SETTLE, Scene},
    table::Row,
};
use crate::Outcome;
use cluster::{
    load::Seen,
    network::Network,
    nodes::{Nodes, Plan},
    relay::{Conditions, UdpRelay},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// After the network is mended, visitors are watched this long.
const AFTER: Duration = Duration::from_secs(30);

/// Cuts five nodes into three and two, and mends it.
pub(super) async fn run(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let count = setting.args.nodes;
    let split = count.div_ceil(2);
    let network = Network::make(count).await?;
    let mut plan = Plan::loopback(&setting.programs.server, setting.folder, count);
    plan.log = &setting.args.log;
    plan.ips = network.ips();
    plan.wrap = network.wrap();
    let nodes = Nodes::start(&plan).await?;
    // Clients find their first node under a name, which leads to loopback: a relay goes on from there.
    let mut relays = Vec::new();
    for (seed, node) in (0..).zip(nodes.addresses()) {
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        relays.push(UdpRelay::start(listen, node, seed, Conditions::default()).await?);
    }
    // More than the larger part has, so that each client has a link to both.
    let scene =
        Scene::with(setting, nodes, Some(split + 1), |index| relays[index % relays.len()].address.port()).await?;
    let (load, calm) = scene.load(setting).await?;

    network.cut(split).await?;
    sleep(Duration::from_secs(setting.args.partition_s)).await;
    let seen = load.report();
    let (larger, smaller) = (Seen::sum(&seen[..split]), Seen::sum(&seen[split..]));
    network.mend(split).await?;
    let start = Instant::now();
    let served = scene.sweep(SETTLE).await.map(|_| start.elapsed());
    let whole = scene.nodes.whole(SETTLE).await.map(|_| start.elapsed());
    sleep(AFTER).await;
    let after = Seen::sum(&load.report());
    Ok(vec![
        calm,
        Row::of(&format!("{count} nodes cut in two, visitors of the {split}"), &larger),
        Row::of(&format!("{count} nodes cut in two, visitors of the {}", count - split), &smaller),
        Row::of("mended", &after).recovered(served).note(&match whole {
            Ok(took) => format!("one ring after {} ms", took.as_millis()),
            Err(error) => error.to_string(),
        }),
    ])
}
