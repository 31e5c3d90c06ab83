//! How faults come about, and how they stop.

use specter_dht::NodeId;

use super::machine::Machine;
use super::nemesis::{self, Fault};
use super::world::{Event, World};
use crate::Violation;
use crate::disk::Tail;

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
        self.queue.push(after, Event::Fault);
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
                let (node, until) = (self.victim(leader), self.queue.time() + micros);
                if let Some(machine) =
                    self.machines.get_mut(&node).filter(|machine| machine.paused_until <= self.queue.time())
                {
                    machine.paused_until = until;
                    self.outcome.count("pauses");
                }
            }
            Fault::Isolate { leader, inward, outward } => {
                let node = self.victim(leader);
                self.outcome.count("partitions");
                self.links.isolate(node, &nodes, inward, outward);
            }
            Fault::Split { mask, bridge } => {
                self.outcome.count("partitions");
                let side = |node: NodeId| (mask >> (node.0 % 64)) & 1;
                let apart = |a: NodeId, b: NodeId| side(a) != side(b) && bridge != Some(a) && bridge != Some(b);
                self.links.split(&nodes, apart);
            }
            Fault::HandOver => {
                let node = self.victim(true);
                if self.leader() == Some(node) {
                    self.outcome.count("hand-overs");
                    self.input(node, specter_dht::kv::Input::HandOver)?;
                }
            }
            Fault::Heal => self.links.heal(),
            Fault::Disk { micros } => {
                self.outcome.count("disk stalls");
                self.disk_micros = micros;
            }
            Fault::Want { nodes: wanted, absent } => {
                self.wanted = wanted;
                if absent {
                    self.cut_off_newcomers();
                }
                for node in nodes {
                    self.want(node)?;
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
                self.links.block(*node, *other);
                self.links.block(*other, *node);
            }
        }
    }

    pub(super) fn crash(&mut self, node: NodeId, down_micros: u64) {
        let tail = Tail::draw(&mut self.random);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if machine.slot.is_some() {
            machine.crash(tail, &mut self.random);
            let boot = machine.boot;
            self.queue.push(down_micros, Event::Start { node, boot });
        }
    }

    /// The faults stop.
    pub(super) fn settle_down(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.weather = self.weather.calm();
        self.links.heal();
        self.disk_micros = 0;
        let down: Vec<NodeId> =
            self.machines.values().filter(|machine| machine.slot.is_none()).map(|machine| machine.id).collect();
        down.into_iter().try_for_each(|node| self.start(node))
    }
}
