//! Nodes, clients and visitors of one case.

use super::{Setting, table::Row};
use crate::Outcome;
use cluster::{
    client::{Client, Publish},
    load::{Load, Pace, Seen, sweep},
    nodes::{Nodes, Plan},
    target::Target,
};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Which node clients reach first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum First {
    /// Each client another one.
    Spread,
    /// All the same.
    Same,
}

/// A cluster that serves.
pub(super) struct Scene {
    pub(super) nodes: Nodes,
    pub(super) clients: Vec<Client>,
    /// All hostnames of all clients.
    pub(super) hosts: Vec<String>,
    _target: Target,
}

/// How long a cluster may take until every hostname is served at every gateway.
pub(super) const SETTLE: Duration = Duration::from_secs(60);

/// Time under load before anything is broken: caches are warm, and links to several nodes are up.
const WARM_UP: Duration = Duration::from_secs(6);

/// What is seen in this time without any fault tells how busy the machine is with other things.
const CALM: Duration = Duration::from_secs(4);

/// When the machine is never calm for that long, a case is run all the same.
const NO_CALM: Duration = Duration::from_secs(90);

impl Scene {
    /// Starts nodes and clients on loopback.
    pub(super) async fn start(setting: &Setting<'_>, first: First) -> Outcome<Self> {
        let mut plan = Plan::loopback(&setting.programs.server, setting.folder, setting.args.nodes);
        plan.log = &setting.args.log;
        let nodes = Nodes::start(&plan).await?;
        let ports: Vec<u16> = nodes.addresses().iter().map(std::net::SocketAddr::port).collect();
        Self::with(setting, nodes, None, |index| ports[if first == First::Same { 0 } else { index % ports.len() }])
            .await
    }

    /// Starts clients of nodes that run. `port` tells where on loopback each client finds its first node.
    pub(super) async fn with(
        setting: &Setting<'_>,
        nodes: Nodes,
        links: Option<usize>,
        port: impl Fn(usize) -> u16,
    ) -> Outcome<Self> {
        let target = Target::start().await?;
        let args = setting.args;
        let each = args.tunnels.div_ceil(args.clients.max(1));
        let mut clients: Vec<Client> = Vec::new();
        for index in 0..args.clients {
            let publish = Publish {
                program: &setting.programs.client,
                folder: setting.folder,
                port: port(index),
                links,
                authority: &nodes.authority_file,
                tunnels: &vec![target.tunnel(); each],
                log: &args.log,
            };
            clients.push(Client::start(&format!("client-{index}"), &publish).await?);
        }
        let hosts: Vec<String> = clients.iter().flat_map(|client| client.hosts.clone()).collect();
        let scene = Self { nodes, clients, hosts, _target: target };
        let took = scene.sweep(SETTLE).await?;
        eprintln!("  all served at all gateways {} ms after the last client was ready", took.as_millis());
        match scene.nodes.whole(SETTLE).await {
            Ok(took) => eprintln!("  one ring, every slot with all its replicas, {} ms later", took.as_millis()),
            Err(error) => eprintln!("  {error}"),
        }
        Ok(scene)
    }

    /// Visits every hostname at every gateway until it is served.
    pub(super) async fn sweep(&self, limit: Duration) -> Outcome<Duration> {
        sweep(&self.nodes.addresses(), &self.hosts, &self.nodes.authority, limit).await
    }

    /// Starts the visitors, and tells what they see while nothing happens.
    pub(super) async fn load(&self, setting: &Setting<'_>) -> Outcome<(Load, Row)> {
        let args = setting.args;
        let pace = Pace { visitors: args.visitors, every: Duration::from_millis(args.every_ms) };
        let load = Load::start(&self.nodes.addresses(), &self.hosts, &self.nodes.authority, pace)?;
        sleep(WARM_UP).await;
        let waited = Instant::now();
        loop {
            load.forget();
            sleep(CALM).await;
            let seen = Seen::sum(&load.report());
            let is_calm = seen.gap.as_millis() < u128::from(args.calm_ms);
            if is_calm || waited.elapsed() > NO_CALM {
                let calm = Row::of("nothing, for comparison", &seen);
                return Ok((load, if is_calm { calm } else { calm.note("NOT CALM: look at errors, not at times") }));
            }
        }
    }
}
