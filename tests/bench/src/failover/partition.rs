//! Nodes in network namespaces of their own, on one bridge, whose network falls into two parts and is mended.
//!
//! A node is cut off from another by a neighbour entry with a link address that nobody has: packets vanish without a word,
//! as on a broken path. Clients and visitors are outside and reach every node all the time.

use super::{
    Setting,
    scene::{SETTLE, Scene},
    table::Row,
};
use crate::Outcome;
use cluster::{
    load::Seen,
    nodes::{Nodes, Plan, succeed},
    relay::{Conditions, UdpRelay},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command as Plain, Stdio},
    time::{Duration, Instant},
};
use tokio::{process::Command, time::sleep};

/// After the network is mended, visitors are watched this long.
const AFTER: Duration = Duration::from_secs(30);

/// A link address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// A bridge, and a namespace for each node. All of it goes when this is dropped.
struct Network {
    bridge: String,
    spaces: Vec<String>,
}

impl Network {
    /// Makes a network for so many nodes. Needs root.
    async fn make(count: usize) -> Outcome<Self> {
        let id = std::process::id();
        let network = Self {
            bridge: format!("sb{id}"),
            spaces: (0..count).map(|index| format!("specter-{id}-{index}")).collect(),
        };
        let bridge = &network.bridge;
        ip(&format!("link add {bridge} type bridge")).await?;
        ip(&format!("addr add {}/24 dev {bridge}", address(0))).await?;
        ip(&format!("link set {bridge} up")).await?;
        for (index, space) in network.spaces.iter().enumerate() {
            let outer = format!("sv{id}-{index}");
            ip(&format!("netns add {space}")).await?;
            ip(&format!("link add {outer} type veth peer name eth0 netns {space}")).await?;
            ip(&format!("link set {outer} master {bridge} up")).await?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", address(index + 1))).await?;
            ip(&format!("-n {space} link set eth0 up")).await?;
            ip(&format!("-n {space} link set lo up")).await?;
        }
        Ok(network)
    }

    /// Nodes before `split` lose all that come after, and the other way round.
    async fn cut(&self, split: usize) -> Outcome<()> {
        self.each_pair(split, |other| format!("neigh replace {other} lladdr {NOBODY} dev eth0 nud permanent")).await
    }

    /// Undoes [`Self::cut`].
    async fn mend(&self, split: usize) -> Outcome<()> {
        self.each_pair(split, |other| format!("neigh del {other} dev eth0")).await
    }

    async fn each_pair(&self, split: usize, what: impl Fn(IpAddr) -> String) -> Outcome<()> {
        for from in 0..self.spaces.len() {
            for to in (0..self.spaces.len()).filter(|to| (from < split) != (*to < split)) {
                ip(&format!("-n {} {}", self.spaces[from], what(address(to + 1)))).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let quietly = |arguments: &[&str]| {
            // What is not there need not go.
            let _ = Plain::new("ip").args(arguments).stderr(Stdio::null()).status();
        };
        for space in &self.spaces {
            quietly(&["netns", "del", space]);
        }
        quietly(&["link", "del", &self.bridge]);
    }
}

/// Address of the n-th node from 1; 0 is ours. The third number keeps benchmarks at the same time apart.
fn address(number: usize) -> IpAddr {
    let id = u8::try_from(std::process::id() % 250).unwrap_or(0);
    Ipv4Addr::new(10, 213, id, 10 + u8::try_from(number).unwrap_or(0)).into()
}

async fn ip(arguments: &str) -> Outcome<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    succeed(&format!("ip {arguments}"), command).await.map(drop)
}

/// Cuts five nodes into three and two, and mends it.
pub(super) async fn run(setting: &Setting<'_>) -> Outcome<Vec<Row>> {
    let count = setting.args.nodes;
    let split = count.div_ceil(2);
    let network = Network::make(count).await?;
    let mut plan = Plan::loopback(&setting.programs.server, setting.folder, count);
    plan.log = &setting.args.log;
    plan.ips = (1..=count).map(address).collect();
    plan.wrap = network.spaces.iter().map(|space| ["ip", "netns", "exec", space].map(str::to_owned).to_vec()).collect();
    let nodes = Nodes::start(&plan).await?;
    // Clients find their first node under a name, which leads to loopback: a relay goes on from there.
    let mut relays = Vec::new();
    for (seed, node) in (0..).zip(nodes.addresses()) {
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        relays.push(UdpRelay::start(listen, node, seed, Conditions::default()).await?);
    }
    let scene = Scene::with(setting, nodes, |index| relays[index % relays.len()].address.port()).await?;
    let load = scene.load(setting).await?;
    load.forget();

    network.cut(split).await?;
    sleep(Duration::from_secs(setting.args.partition_s)).await;
    let seen = load.report();
    let (larger, smaller) = (Seen::sum(&seen[..split]), Seen::sum(&seen[split..]));
    network.mend(split).await?;
    let start = Instant::now();
    let served = scene.sweep(SETTLE).await.map(|_| start.elapsed());
    sleep(AFTER).await;
    let after = Seen::sum(&load.report());
    Ok(vec![
        Row::of(&format!("{count} nodes cut in two, visitors of the {split}"), &larger),
        Row::of(&format!("{count} nodes cut in two, visitors of the {}", count - split), &smaller),
        Row::of("mended", &after).recovered(served),
    ])
}
