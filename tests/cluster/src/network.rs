//! Nodes in network namespaces of their own, on one bridge. Linux alone, and root.
//!
//! A node is cut off from another by a neighbour entry with a link address that nobody has: packets vanish without a word,
//! as on a broken path. Whoever is outside reaches every node all the time.

use crate::{Outcome, nodes::succeed};
use std::{
    net::{IpAddr, Ipv4Addr},
    process::{Command as Plain, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::process::Command;

/// A link address that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// A bridge, and a namespace for each node. All of it goes when this is dropped.
pub struct Network {
    bridge: String,
    spaces: Vec<String>,
    /// The third number of its addresses.
    part: u8,
}

/// Networks of this process so far.
static MADE: AtomicU32 = AtomicU32::new(0);

impl Network {
    /// Makes a network for so many nodes. Needs root.
    ///
    /// # Errors
    /// What the system refused.
    pub async fn make(count: usize) -> Outcome<Self> {
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let id = format!("{process}-{number}");
        let network = Self {
            bridge: format!("sb{id}"),
            spaces: (0..count).map(|index| format!("specter-{id}-{index}")).collect(),
            // It keeps what is run at the same time apart.
            part: u8::try_from((process + 101 * number) % 250).unwrap_or(0),
        };
        let bridge = &network.bridge;
        ip(&format!("link add {bridge} type bridge")).await?;
        ip(&format!("addr add {}/24 dev {bridge}", network.address(0))).await?;
        ip(&format!("link set {bridge} up")).await?;
        for (index, space) in network.spaces.iter().enumerate() {
            let outer = format!("sv{id}-{index}");
            ip(&format!("netns add {space}")).await?;
            ip(&format!("link add {outer} type veth peer name eth0 netns {space}")).await?;
            ip(&format!("link set {outer} master {bridge} up")).await?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", network.address(index + 1))).await?;
            ip(&format!("-n {space} link set eth0 up")).await?;
            ip(&format!("-n {space} link set lo up")).await?;
        }
        Ok(network)
    }

    /// Nodes before `split` lose all that come after, and the other way round.
    ///
    /// # Errors
    /// What the system refused.
    pub async fn cut(&self, split: usize) -> Outcome<()> {
        self.each_pair(split, |other| format!("neigh replace {other} lladdr {NOBODY} dev eth0 nud permanent")).await
    }

    /// Undoes [`Self::cut`].
    ///
    /// # Errors
    /// What the system refused.
    pub async fn mend(&self, split: usize) -> Outcome<()> {
        self.each_pair(split, |other| format!("neigh del {other} dev eth0")).await
    }

    /// Nothing that nodes send by UDP reaches us any more, as behind a firewall; TCP does.
    ///
    /// # Errors
    /// What the system refused.
    pub async fn block_udp(&self) -> Outcome<()> {
        self.udp_rule("add").await
    }

    /// Undoes [`Self::block_udp`].
    ///
    /// # Errors
    /// What the system refused.
    pub async fn let_udp_through(&self) -> Outcome<()> {
        self.udp_rule("del").await
    }

    async fn udp_rule(&self, what: &str) -> Outcome<()> {
        for space in &self.spaces {
            ip(&format!("-n {space} rule {what} to {} ipproto udp blackhole", self.address(0))).await?;
        }
        Ok(())
    }

    /// Words that run a program in the namespace of each node.
    pub fn wrap(&self) -> Vec<Vec<String>> {
        self.spaces.iter().map(|space| ["ip", "netns", "exec", space].map(str::to_owned).to_vec()).collect()
    }

    /// Addresses of the nodes.
    pub fn ips(&self) -> Vec<IpAddr> {
        (1..=self.spaces.len()).map(|number| self.address(number)).collect()
    }

    /// Address of the n-th node from 1; 0 is ours.
    fn address(&self, number: usize) -> IpAddr {
        Ipv4Addr::new(10, 213, self.part, 10 + u8::try_from(number).unwrap_or(0)).into()
    }

    async fn each_pair(&self, split: usize, what: impl Fn(IpAddr) -> String) -> Outcome<()> {
        for from in 0..self.spaces.len() {
            for to in (0..self.spaces.len()).filter(|to| (from < split) != (*to < split)) {
                ip(&format!("-n {} {}", self.spaces[from], what(self.address(to + 1)))).await?;
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

async fn ip(arguments: &str) -> Outcome<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    succeed(&format!("ip {arguments}"), command).await.map(drop)
}
