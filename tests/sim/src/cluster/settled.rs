//! Whether the cluster is what it should be once nothing fails: one ring, and every slot led by whom the ring wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use specter_dht::kv::{Key, Register};
use specter_dht::{NodeId, SlotId, Version};

use specter_dht::ring::invariant::{self, Member};

use super::machine::{Duty, Machine, Name};
use super::trace;
use super::watch::readable;
use super::world::World;

impl World {
    /// The nodes that should keep a slot: the first distinct machines clockwise from where it begins.
    pub(super) fn placement(&self, slot: SlotId) -> BTreeSet<NodeId> {
        let from = self.swarm.terms.point_of(slot);
        let staying = self.machines.values().filter(|machine| matches!(machine.duty, Duty::Up | Duty::Down));
        let mut ahead: Vec<(u64, NodeId)> =
            staying.map(|machine| (machine.peer().first_from(from), machine.id)).collect();
        ahead.sort_unstable();
        ahead.into_iter().take(usize::from(self.swarm.terms.replicas)).map(|(_, id)| id).collect()
    }

    /// What every member of the ring holds for true.
    fn ring(&self) -> Vec<Member> {
        let views = |machine: &Machine| machine.node.as_ref().map(|node| node.ring().views());
        let member = |machine: &Machine| Some(Member { peer: machine.peer(), views: views(machine)? });
        self.up().filter_map(member).collect()
    }

    /// Nothing when all is well, or what is not.
    pub(super) fn unsettled(&self) -> Option<String> {
        if let Some(machine) = self.machines.values().find(|machine| matches!(machine.duty, Duty::Down | Duty::Leaving))
        {
            return Some(format!("{} is {:?}", machine.name, machine.duty));
        }
        // A node that is alone would otherwise be all there is to settle.
        let waits = |machine: &&Machine| u64::from(machine.name.0) <= self.swarm.nodes && machine.boot == 0;
        if let Some(machine) = self.machines.values().find(waits) {
            return Some(format!("{} has not started yet", machine.name));
        }
        let ring = self.ring();
        if let Some(name) = self.up().find(|machine| !is_in_ring(machine)).map(|machine| machine.name) {
            return Some(format!("{name} is no member of the ring"));
        }
        let ideal =
            invariant::check(&ring).and_then(|()| invariant::check_ideal(&ring, self.swarm.settings.ring.successors));
        if let Err(text) = ideal {
            return Some(trace::with_names(&self.labels, &text));
        }
        (0..self.swarm.terms.slots()).map(SlotId).find_map(|slot| self.slot_unsettled(slot))
    }

    fn slot_unsettled(&self, slot: SlotId) -> Option<String> {
        let parts = self.up().filter_map(|machine| {
            let part = machine.node.as_ref()?.slots().get(&slot)?;
            Some((machine, part, part.leads()?))
        });
        let leading: Vec<_> = parts.collect();
        let [(machine, part, config)] = leading.as_slice() else {
            return Some(format!("{} machines lead {slot:?}", leading.len()));
        };
        let wanted = self.placement(slot);
        if part.is_changing() || !config.is_stable() || config.nodes() != wanted {
            let named = |nodes: &BTreeSet<NodeId>| self.name_all(nodes);
            return Some(format!(
                "{slot:?}, led by {}, is kept by {} {}and should be by {}",
                machine.name,
                named(&config.nodes()),
                if config.is_stable() { "" } else { "(jointly) " },
                named(&wanted)
            ));
        }
        None
    }

    /// Every machine, and what it knows of the slots that are not as they should be.
    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for machine in self.machines.values() {
            let Machine { name, id, duty, boot, seats, .. } = machine;
            lines.push(format!("{name}: {id}, {duty:?}, started {boot} times, {seats} seats"));
        }
        let needs_leaving = |slot: &SlotId| {
            let mut leaving = self.machines.values().filter(|machine| machine.duty == Duty::Leaving);
            leaving.any(|machine| {
                let part = machine.node.as_ref().and_then(|node| node.slots().get(slot));
                part.is_some_and(|part| !part.state().chosen || part.state().config.audience().contains(&machine.id))
            })
        };
        let slots = (0..self.swarm.terms.slots()).map(SlotId);
        for slot in slots.filter(|slot| self.slot_unsettled(*slot).is_some() || needs_leaving(slot)).take(3) {
            let newest = self.watch.newest(slot).map(|config| (config.version, self.name_all(&config.nodes())));
            lines.push(format!("{slot:?}: newest chosen {newest:?}, wanted {}", self.name_all(&self.placement(slot))));
            for machine in self.machines.values() {
                let part = machine.node.as_ref().and_then(|node| node.slots().get(&slot));
                let Some(state) = part.map_or_else(|| machine.image.slots.get(&slot), |part| Some(part.state())) else {
                    continue;
                };
                let (sides, chosen) = (&state.config, state.chosen);
                let leads = part.is_some_and(|part| part.leads().is_some());
                let text =
                    format!("  {}: leads {leads}, promise {}, chosen {chosen}, {sides:?}", machine.name, state.promise);
                lines.push(trace::with_names(&self.labels, &text));
            }
        }
        lines
    }

    /// Machines as a person reads them.
    pub(super) fn name_all(&self, nodes: &BTreeSet<NodeId>) -> String {
        let name = |node: &NodeId| self.labels.get(node).cloned().unwrap_or_else(|| node.to_string());
        nodes.iter().map(name).collect::<Vec<_>>().join(",")
    }

    /// Whether all members of each slot hold the same, or which do not.
    pub(super) fn unequal(&self) -> Option<String> {
        (0..self.swarm.terms.slots()).map(SlotId).find_map(|slot| {
            let leader = self.leader(slot)?;
            let held = |name: Name| self.machines.get(&name)?.image.slots.get(&slot).map(|state| &state.registers);
            let (first, none) = (held(leader)?, BTreeMap::new());
            let mut others = self.members(slot).into_iter().filter(|name| *name != leader);
            others.find_map(|name| {
                let second = held(name).unwrap_or(&none);
                let mut keys = first.keys().chain(second.keys());
                // A member that was not there when a tombstone was purged keeps it until another leads.
                let real = |held: &Registers, key| {
                    held.get(key).filter(|(_, register)| !register.is_tombstone()).map(|(version, _)| *version)
                };
                let key = keys.find(|key| real(first, *key) != real(second, *key))?;
                let version = |held: &Registers| held.get(key).map(|(version, _)| version.to_string());
                let (one, other, key) = (version(first), version(second), readable(key));
                Some(format!("{slot:?}: {leader}, which leads, holds {key} at {one:?}, and {name} at {other:?}"))
            })
        })
    }
}

type Registers = BTreeMap<Key, (Version, Arc<Register>)>;

pub(super) fn is_in_ring(machine: &Machine) -> bool {
    machine.node.as_ref().is_some_and(|node| node.ring().is_member())
}
