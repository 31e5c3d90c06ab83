//! How faults come about, and how they stop.

use specter_dht::NodeId;
use specter_dht::kv::Input;

use super::{Event, World};
use crate::Violation;
use crate::machine::{Machine, Tail};
use crate::nemesis::{self, Fault};

impl World {
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leading = |machine: &&Machine| machine.slot.as_ref().is_some_and(|slot| slot.leads().is_some());
        let leaders = self.machines.values().filter(leading);
        leaders.max_by_key(|machine| machine.image.promise).map(|machine| machine.id)
    }

    pub(super) fn victim(&mut self, leader: bool) -> NodeId {
        let any = NodeId::from(self.random.below(self.swarm.nodes));
        if leader { self.leader().unwrap_or(any) } else { any }
    }

    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let (low, high) = self.swarm.fault_gap_micros;
        let after = self.random.between(low, high);
        self.schedule(after, Event::Fault);
        let Some(fault) = nemesis::draw(&self.swarm, &mut self.random) else { return Ok(()) };
        self.outcome.trace.feed(&fault);
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        match fault {
            Fault::Crash { leader, down_micros } => {
                let node = self.victim(leader);
                self.outcome.count("crashes");
                self.crash(node, down_micros);
            }
            Fault::Power { down_micros } => {
                self.outcome.count("power cuts");
                nodes.into_iter().for_each(|node| self.crash(node, down_micros));
            }
            Fault::Pause { leader, micros } => {
                let (node, until) = (self.victim(leader), self.time + micros);
                if let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.paused_until <= self.time)
                {
                    machine.paused_until = until;
                    self.outcome.count("pauses");
                }
            }
            Fault::Isolate { leader, inward, outward } => {
                let node = self.victim(leader);
                self.outcome.count("partitions");
                for other in nodes.into_iter().filter(|other| *other != node) {
                    if outward {
                        self.network.block(node, other);
                    }
                    if inward {
                        self.network.block(other, node);
                    }
                }
            }
            Fault::Split { mask, bridge } => {
                self.outcome.count("partitions");
                let side = |node: NodeId| (mask >> (node.0 % 64)) & 1;
                let apart = |a: NodeId, b: NodeId| side(a) != side(b) && bridge != Some(a) && bridge != Some(b);
                let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
                for (a, b) in pairs.filter(|(a, b)| apart(*a, *b)) {
                    self.network.block(a, b);
                }
            }
            Fault::HandOver => {
                let node = self.victim(true);
                if self.leader() == Some(node) {
                    self.outcome.count("hand-overs");
                    self.input(node, Input::HandOver)?;
                }
            }
            Fault::Heal => self.network.heal(),
            Fault::Disk { micros } => {
                self.outcome.count("disk stalls");
                self.disk_micros = micros;
            }
            Fault::Full { leader, full: true } => {
                let node = self.victim(leader);
                self.outcome.count("disks full");
                self.fill(node, true)?;
            }
            Fault::Full { full: false, .. } => nodes.into_iter().try_for_each(|node| self.fill(node, false))?,
            Fault::Lose { leader, which } => self.lose(leader, which)?,
            Fault::Want { nodes: wanted, absent } => {
                self.wanted = wanted;
                if absent {
                    self.cut_off_newcomers();
                }
                for node in nodes {
                    self.input(node, self.want())?;
                }
            }
        }
        Ok(())
    }

    /// Cuts all links to nodes that are wanted and not yet members.
    fn cut_off_newcomers(&mut self) {
        let slot = self.leader().and_then(|leader| self.machines.get(&leader)?.slot.as_ref());
        let Some(members) = slot.map(|slot| slot.state().config.nodes()) else { return };
        for node in self.wanted.iter().filter(|node| !members.contains(node)) {
            for other in self.machines.keys().filter(|other| *other != node) {
                self.network.block(*node, *other);
                self.network.block(*other, *node);
            }
        }
    }

    /// A disk loses a value, unless another one still lacks what it lost.
    fn lose(&mut self, leader: bool, which: u64) -> Result<(), Violation> {
        let node = self.victim(leader);
        let whole = |machine: &Machine| {
            let running = machine.slot.as_ref().is_some_and(|slot| slot.state().lost.is_empty());
            machine.id == node || (running && machine.image.lost.is_empty())
        };
        if !self.machines.values().all(whole) {
            return Ok(());
        }
        let Some(slot) = self.machines.get_mut(&node).and_then(|machine| machine.slot.as_mut()) else { return Ok(()) };
        let count = slot.state().registers.len() as u64;
        let index = usize::try_from(which.checked_rem(count).unwrap_or_default()).unwrap_or_default();
        if let Some(key) = slot.state().registers.keys().nth(index).cloned() {
            slot.forget(&key);
        }
        // What it says now is taken along with what it says to this, which it knows already.
        let full = self.machines.get(&node).is_some_and(|machine| machine.full);
        self.input(node, Input::ReadOnly(full))
    }

    fn fill(&mut self, node: NodeId, full: bool) -> Result<(), Violation> {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.full = full;
        }
        self.input(node, Input::ReadOnly(full))
    }

    pub(super) fn crash(&mut self, node: NodeId, down_micros: u64) {
        let tail = [Tail::Kept, Tail::Lost, Tail::Torn][usize::try_from(self.random.below(3)).unwrap_or_default()];
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if machine.slot.is_some() {
            machine.crash(tail, &mut self.random);
            let boot = machine.boot;
            self.schedule(down_micros, Event::Start { node, boot });
        }
    }

    /// The faults stop.
    pub(super) fn settle_down(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.network.heal();
        self.disk_micros = 0;
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        nodes.into_iter().try_for_each(|node| self.fill(node, false))?;
        let down: Vec<NodeId> =
            self.machines.values().filter(|machine| machine.slot.is_none()).map(|machine| machine.id).collect();
        down.into_iter().try_for_each(|node| self.start(node))
    }
}
