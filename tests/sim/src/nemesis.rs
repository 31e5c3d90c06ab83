//! Which faults happen when.

use specter_dht::{NodeId, Random};

use crate::Swarm;
use crate::swarm::PAUSE_MICROS;

/// A fault.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Fault {
    /// One node crashes; the leader when it says so.
    Crash { leader: bool, down_micros: u64 },
    /// All nodes crash at once.
    Power { down_micros: u64 },
    /// One node stands still.
    Pause { leader: bool, micros: u64 },
    /// One node is cut off, in one direction or both.
    Isolate { leader: bool, inward: bool, outward: bool },
    /// The leader is asked to go.
    HandOver,
    /// Two groups cannot talk; a node in both if there is a bridge.
    Split { mask: u64, bridge: Option<NodeId> },
    /// All links work again.
    Heal,
    /// Disks need this long for an fsync.
    Disk { micros: u64 },
    /// The disk of one node has no room, or those of all have some again.
    Full { leader: bool, full: bool },
    /// A node finds that its disk has lost a value.
    Lose { leader: bool, which: u64 },
    /// The ring wants these members; those that are new cannot be reached when they are said to be absent.
    Want { nodes: Vec<NodeId>, absent: bool },
}

/// Draws the next fault; none when the kind drawn does not happen in this world.
pub(crate) fn draw(swarm: &Swarm, random: &mut Random) -> Option<Fault> {
    let faults = swarm.faults;
    let leader = random.chance(500);
    match random.below(100) {
        0..22 if faults.crash => Some(Fault::Crash { leader, down_micros: random.between(1_000, 1_500_000) }),
        22..25 if faults.crash => Some(Fault::HandOver),
        25..30 if faults.power => Some(Fault::Power { down_micros: random.between(1_000, 500_000) }),
        30..40 if faults.pause => Some(Fault::Pause { leader, micros: random.between(10_000, PAUSE_MICROS) }),
        40..55 if faults.partition => {
            let ways = random.below(4);
            Some(Fault::Isolate { leader, inward: ways != 1, outward: ways != 2 })
        }
        55..62 if faults.partition => {
            let bridge = random.chance(300).then(|| NodeId::from(random.below(swarm.nodes)));
            Some(Fault::Split { mask: random.next_u64(), bridge })
        }
        62..76 if faults.partition => Some(Fault::Heal),
        76..78 if faults.lose => Some(Fault::Lose { leader, which: random.next_u64() }),
        78..80 if faults.slow_disk => Some(Fault::Full { leader, full: random.chance(600) }),
        80..83 if faults.slow_disk => {
            let micros = if random.chance(600) { 0 } else { random.between(20_000, 400_000) };
            Some(Fault::Disk { micros })
        }
        83..100 if faults.reconfigure => {
            let absent = faults.partition && random.chance(250);
            Some(Fault::Want { nodes: draw_members(swarm, random), absent })
        }
        _ => None,
    }
}

/// Some nodes, mostly as many as the slot began with.
fn draw_members(swarm: &Swarm, random: &mut Random) -> Vec<NodeId> {
    let mut all: Vec<NodeId> = (0..swarm.nodes).map(NodeId::from).collect();
    let fewest = if swarm.faults.lose { 3 } else { 1 };
    let count = if random.chance(800) { swarm.replicas } else { random.between(fewest, swarm.nodes.min(5)) };
    let mut nodes: Vec<NodeId> = Vec::new();
    for _ in 0..count {
        let index = usize::try_from(random.below(all.len() as u64)).unwrap_or_default();
        nodes.push(all.swap_remove(index));
    }
    nodes.sort();
    nodes
}
