//! How faults come about, and how they stop.

use std::net::SocketAddr;

use specter_dht::{Input, SlotId};
use specter_storage::fault::Fault as DiskFault;

use super::machine::{Duty, Machine, Name};
use super::nemesis::{self, Fault, Whom};
use super::settled::is_in_ring;
use super::store::End;
use super::world::{Event, World, draw_id};
use crate::Violation;
use crate::disk::Tail;

/// How a disk fails that goes on working, or seems to.
const DISK_FAULTS: [DiskFault; 3] = [DiskFault::Io, DiskFault::NoSpace, DiskFault::Short];

impl World {
    /// Who leads a slot, as far as its nodes say; the one with the highest promise when more than one say so.
    pub(super) fn leader(&self, slot: SlotId) -> Option<Name> {
        let leading = self.up().filter_map(|machine| {
            let part = machine.node.as_ref()?.slots().get(&slot)?;
            part.leads().map(|_| (part.state().promise, machine.name))
        });
        leading.max().map(|(_, name)| name)
    }

    fn victim(&mut self, whom: Whom) -> Option<Name> {
        let name = match whom {
            Whom::One(name) => Some(name),
            Whom::LeaderOf(number) => self.leader(self.slot_of_number(number)).or_else(|| self.any_machine()),
        };
        name.filter(|name| self.machines.get(name).is_some_and(|machine| machine.is_up()))
    }

    fn slot_of_number(&self, number: u64) -> SlotId {
        SlotId(u16::try_from(number % u64::from(self.swarm.terms.slots())).unwrap_or_default())
    }

    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.phase.is_chaos() {
            return Ok(());
        }
        let (low, high) = self.swarm.fault_gap_micros;
        let after = self.random.between(low, high);
        self.queue.push(after, Event::Fault);
        match nemesis::draw(&self.swarm, &mut self.random) {
            Some(fault) => self.befall(fault),
            None => Ok(()),
        }
    }

    /// Lets a fault happen.
    pub(super) fn befall(&mut self, fault: Fault) -> Result<(), Violation> {
        self.outcome.trace.feed(&fault);
        self.tell(|| format!("{fault:?}"));
        let time = self.queue.time();
        let whom = match fault {
            Fault::Crash { whom, .. }
            | Fault::Pause { whom, .. }
            | Fault::Leap { whom, .. }
            | Fault::Isolate { whom, .. }
            | Fault::Flap { whom, .. }
            | Fault::Slow { whom, .. }
            | Fault::Stall { whom, .. }
            | Fault::Full { whom, .. }
            | Fault::Broken { whom, .. }
            | Fault::Wipe { whom, .. }
            | Fault::Leave { whom, .. } => Some(whom),
            Fault::Power { .. }
            | Fault::CrashSlot { .. }
            | Fault::Split { .. }
            | Fault::Heal
            | Fault::Weather { .. }
            | Fault::Join { .. }
            | Fault::SeedRestart { .. } => None,
        };
        let Some(whom) = whom else { return self.befall_all(fault) };
        let Some(name) = self.victim(whom) else { return Ok(()) };
        let all: Vec<Name> = self.machines.keys().copied().collect();
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        match fault {
            Fault::Crash { midway: None, down_micros, .. } => {
                self.outcome.count("crashes");
                self.crash(name, Some(down_micros));
            }
            Fault::Crash { midway: Some(after), .. } => {
                if let Some(store) = &mut machine.store
                    && store.random().chance(500)
                {
                    store.fail_soon(&[DiskFault::CrashBefore, DiskFault::CrashAfter]);
                } else {
                    machine.dies_after = Some(after);
                }
            }
            Fault::Broken { down_micros, .. } => {
                self.outcome.count("disks that failed once");
                match &mut machine.store {
                    None => self.crash(name, Some(down_micros)),
                    Some(store) => store.fail_soon(&DISK_FAULTS),
                }
            }
            Fault::Pause { micros, .. } => {
                self.outcome.count("pauses");
                machine.paused_until = machine.paused_until.max(time + micros);
                machine.sound_since = machine.paused_until;
            }
            Fault::Leap { micros, .. } => {
                self.outcome.count("leaps of clocks");
                machine.clock.leap(micros);
                // It is woken as soon as it wakes up.
                let boot = machine.boot;
                machine.wake_at = time;
                self.queue.push(0, Event::Wake { machine: name, boot });
            }
            Fault::Isolate { inward, outward, .. } => {
                self.outcome.count("partitions");
                self.links.isolate(name, &all, inward, outward);
                self.heal_later();
            }
            Fault::Flap { times, .. } => {
                self.outcome.count("links that flap");
                self.flap(name, times);
            }
            Fault::Slow { micros, .. } => {
                self.outcome.count("slow disks");
                machine.slow_micros = micros;
            }
            Fault::Stall { micros, .. } => {
                self.outcome.count("disks that stall");
                machine.stalled_until = time + micros;
            }
            Fault::Full { micros, .. } => {
                self.outcome.count("disks that are full");
                let boot = machine.boot;
                self.queue.push(micros, Event::Room { machine: name, boot });
                self.set_full(name, true)?;
            }
            Fault::Wipe { down_micros, .. } => self.wipe(name, down_micros),
            Fault::Leave { deadline_micros, .. } => {
                // Somebody must be left to keep what there is, and to let others in.
                if self.somebody_stays_without(name) {
                    self.leave(name, Some(deadline_micros))?;
                }
            }
            Fault::Power { .. }
            | Fault::CrashSlot { .. }
            | Fault::Split { .. }
            | Fault::Heal
            | Fault::Weather { .. }
            | Fault::Join { .. }
            | Fault::SeedRestart { .. } => {}
        }
        Ok(())
    }

    fn befall_all(&mut self, fault: Fault) -> Result<(), Violation> {
        let all: Vec<Name> = self.machines.keys().copied().collect();
        match fault {
            Fault::Power { down_micros } => {
                self.outcome.count("power cuts");
                all.into_iter().for_each(|name| self.cut_power(name, down_micros));
            }
            Fault::CrashSlot { slot, down_micros } => {
                self.outcome.count("crashes of all members of a slot");
                let slot = self.slot_of_number(slot);
                for name in self.members(slot) {
                    self.cut_power(name, down_micros);
                }
            }
            Fault::SeedRestart { down_micros } => {
                self.outcome.count("restarts of the seed");
                self.crash(Name(1), Some(down_micros));
            }
            Fault::Split { mask, bridge } => {
                self.outcome.count("partitions");
                let side = |name: Name| (mask >> (name.0 % 64)) & 1;
                let apart = |a: Name, b: Name| side(a) != side(b) && bridge != Some(a) && bridge != Some(b);
                self.links.split(&all, apart);
                self.heal_later();
            }
            Fault::Heal => self.links.heal(),
            Fault::Weather { loss, times_slower } => {
                self.outcome.count("changes of the weather");
                let (low, high) = self.swarm.weather.delay_micros;
                self.weather.loss = loss;
                self.weather.delay_micros = (low, high * times_slower);
            }
            Fault::Join { count, afresh } => {
                let away: Vec<Name> =
                    self.machines.values().filter(|machine| machine.duty == Duty::Away).map(|it| it.name).collect();
                for name in away.into_iter().take(usize::try_from(count).unwrap_or(1)) {
                    self.outcome.count("joins begun");
                    self.join(name, None, afresh)?;
                }
            }
            Fault::Crash { .. }
            | Fault::Pause { .. }
            | Fault::Leap { .. }
            | Fault::Isolate { .. }
            | Fault::Flap { .. }
            | Fault::Slow { .. }
            | Fault::Stall { .. }
            | Fault::Full { .. }
            | Fault::Broken { .. }
            | Fault::Wipe { .. }
            | Fault::Leave { .. } => {}
        }
        Ok(())
    }

    /// Cuts all links between machines of different sides; who is on none can talk to all.
    pub(super) fn partition(&mut self, sides: &[Vec<Name>]) {
        let all: Vec<Name> = self.machines.keys().copied().collect();
        let side = |name: Name| sides.iter().position(|side| side.contains(&name));
        self.links.split(&all, |a, b| side(a).zip(side(b)).is_some_and(|(a, b)| a != b));
    }

    /// Most partitions end by themselves, or hardly anybody could talk to anybody before long; those of a scenario do not.
    fn heal_later(&mut self) {
        if self.swarm.faults.partition && self.random.chance(700) {
            let after = self.random.between(50_000, 8_000_000);
            self.queue.push(after, Event::Heal);
        }
    }

    /// The machines that keep a slot, by its newest configuration that is known to be chosen.
    pub(super) fn members(&self, slot: SlotId) -> Vec<Name> {
        let nodes = self.watch.newest(slot).map(|config| config.nodes()).unwrap_or_default();
        nodes.iter().filter_map(|node| self.names.get(node).copied()).collect()
    }

    /// A machine crashes, and starts again after a while: soon when no time is given.
    pub(super) fn crash(&mut self, name: Name, down_micros: Option<u64>) {
        self.crash_down(name);
        self.start_again(name, down_micros);
    }

    /// The power of a machine fails, and comes back after a while. It takes what was not synced from one that is down, too.
    fn cut_power(&mut self, name: Name, down_micros: u64) {
        let tail = Tail::draw(&mut self.random);
        let Some(machine) = self.machines.get_mut(&name) else { return };
        if machine.is_up() {
            machine.stop(Duty::Down, End::PowerCut(tail), &mut self.random);
            self.tell(|| format!("the power of {name} fails"));
        } else if machine.boot > 0 {
            machine.end(End::PowerCut(tail));
        }
        self.start_again(name, Some(down_micros));
    }

    fn start_again(&mut self, name: Name, down_micros: Option<u64>) {
        let Some(machine) = self.machines.get(&name).filter(|machine| machine.duty == Duty::Down) else { return };
        let boot = machine.boot;
        let after = down_micros.unwrap_or_else(|| self.random.between(1_000, 1_500_000));
        self.queue.push(after, Event::Start { machine: name, boot });
    }

    /// A machine crashes and stays down.
    pub(super) fn crash_down(&mut self, name: Name) {
        let tail = Tail::draw(&mut self.random);
        let Some(machine) = self.machines.get_mut(&name).filter(|machine| machine.is_up()) else { return };
        // Where all is kept, only the process ends.
        let end = if let Tail::Kept = tail { End::Killed } else { End::PowerCut(tail) };
        machine.stop(Duty::Down, end, &mut self.random);
        self.tell(|| format!("{name} crashes"));
    }

    /// A machine loses its disk and comes back as a new node (rule D1), unless more would be lost than may be.
    fn wipe(&mut self, name: Name, down_micros: u64) {
        let Some(machine) = self.machines.get(&name) else { return };
        if !self.watch.may_lose(machine.id, &self.machines) {
            self.outcome.count("disks spared, or too many would be lost");
            return;
        }
        self.outcome.count("disks lost");
        self.crash(name, Some(down_micros));
        self.lose_disk(name);
    }

    /// A machine's disk is empty; it is a new node, which is told where others are.
    pub(super) fn lose_disk(&mut self, name: Name) {
        let seeds = self.some_others(name);
        let id = draw_id(&mut self.random);
        let (rules, keeps) = (self.swarm.rules, self.swarm.keeps_identity);
        let Some(machine) = self.machines.get_mut(&name) else { return };
        let id = if keeps { machine.id } else { id };
        self.watch.bury(machine.id, machine.image.clone());
        self.names.insert(id, name);
        let generation = self.names.values().filter(|other| **other == name).count();
        self.labels.insert(id, format!("{name}.{generation}"));
        machine.wipe(id, rules);
        machine.creates = None;
        machine.seeds = seeds;
        self.tell(|| format!("{name} has lost its disk and is now {id:?}"));
    }

    /// Where a machine may look for others: at up to three that stay, one of them running if there is any.
    fn some_others(&mut self, name: Name) -> Vec<SocketAddr> {
        let stays = |machine: &&Machine| matches!(machine.duty, Duty::Up | Duty::Down) && machine.name != name;
        let staying = self.machines.values().filter(stays);
        let (mut up, mut others): (Vec<_>, Vec<_>) =
            staying.map(|machine| (machine.name, machine.is_up())).partition(|(_, is_up)| *is_up);
        let mut seeds = Vec::new();
        while seeds.len() < 3 && !(up.is_empty() && others.is_empty()) {
            let from = if seeds.is_empty() && !up.is_empty() { &mut up } else { &mut others };
            let from = if from.is_empty() { &mut up } else { from };
            let index = usize::try_from(self.random.below(from.len() as u64)).unwrap_or_default();
            seeds.push(from.swap_remove(index).0.address());
        }
        seeds
    }

    /// Names lead to machines that stay: who has found nobody yet, and would look only at machines that have left, looks at
    /// others, as a node does that looks its names up again and again.
    pub(super) fn look_up_again(&mut self) -> Result<(), Violation> {
        let stays = |machine: &Machine| machine.duty != Duty::Away;
        // It may know the cluster and be no member yet, because all whom it met left before it was one.
        let is_outside =
            |machine: &Machine| machine.held().terms.is_none() || (machine.boot == 1 && !is_in_ring(machine));
        let is_stranger = |machine: &Machine| is_outside(machine) && machine.creates.is_none();
        let leads_nowhere = |machine: &Machine| {
            let seeds = machine.seeds.iter().filter_map(|seed| self.machines.get(&Name::at(*seed)?));
            !seeds.into_iter().any(stays)
        };
        let waits = |machine: &&Machine| {
            let at_first = u64::from(machine.name.0) <= self.swarm.nodes && machine.boot == 0;
            (stays(machine) || at_first) && is_stranger(machine) && leads_nowhere(machine)
        };
        let lost: Vec<Name> = self.machines.values().filter(waits).map(|machine| machine.name).collect();
        for name in lost {
            let insiders = self.machines.values().filter(|machine| stays(machine) && !is_stranger(machine));
            let seeds: Vec<SocketAddr> = insiders.map(|machine| machine.name.address()).take(3).collect();
            if let Some(machine) = self.machines.get_mut(&name) {
                machine.seeds.clone_from(&seeds);
            }
            self.input(name, Input::Seeds(seeds))?;
        }
        Ok(())
    }

    /// A machine that is away starts: with the disk it had, or with a new one.
    pub(super) fn join(&mut self, name: Name, via: Option<Name>, afresh: bool) -> Result<(), Violation> {
        let seeds = via.map_or_else(|| self.some_others(name), |via| vec![via.address()]);
        let Some(machine) = self.machines.get(&name).filter(|machine| machine.duty == Duty::Away) else {
            return Ok(());
        };
        let used = machine.boot > 0;
        if used && afresh && self.watch.may_lose(machine.id, &self.machines) {
            self.lose_disk(name);
        }
        if let Some(machine) = self.machines.get_mut(&name) {
            machine.seeds = seeds;
        }
        self.start(name)
    }

    fn somebody_stays_without(&self, name: Name) -> bool {
        let stays = |machine: &Machine| {
            let member = machine.node.as_ref().is_some_and(|node| node.ring().is_member());
            member && machine.duty == Duty::Up && machine.name != name
        };
        self.machines.values().any(stays)
    }

    pub(super) fn leave(&mut self, name: Name, deadline_micros: Option<u64>) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&name).filter(|machine| machine.duty == Duty::Up) else {
            return Ok(());
        };
        machine.duty = Duty::Leaving;
        self.outcome.count("leaves begun");
        let boot = machine.boot;
        if let Some(after) = deadline_micros {
            self.queue.push(after, Event::Deadline { machine: name, boot });
        }
        self.input(name, Input::Leave)
    }

    /// The time of a machine that leaves is over: it is stopped, which is a crash, and somebody starts it again.
    pub(super) fn deadline(&mut self, name: Name, boot: u32) {
        let leaving = self.machines.get(&name).is_some_and(|machine| machine.duty == Duty::Leaving);
        if leaving && self.is_same(name, boot) && self.phase.is_chaos() {
            self.outcome.count("leaves cut short");
            self.crash(name, None);
        }
    }

    pub(super) fn set_full(&mut self, name: Name, full: bool) -> Result<(), Violation> {
        if let Some(machine) = self.machines.get_mut(&name) {
            machine.full = full;
            if let Some(store) = &mut machine.store {
                // Its node is told when it notices.
                store.set_full(full);
                return Ok(());
            }
        }
        self.input(name, Input::ReadOnly(full))
    }

    /// A machine is cut off, or no longer, and then the other way round.
    pub(super) fn flap(&mut self, one: Name, times: u32) {
        if !self.phase.is_chaos() {
            return;
        }
        if times.is_multiple_of(2) {
            let all: Vec<Name> = self.machines.keys().copied().collect();
            self.links.isolate(one, &all, true, true);
        } else {
            self.links.heal();
        }
        if times > 1 {
            let after = self.random.between(20_000, 800_000);
            self.queue.push(after, Event::Flap { one, times: times - 1 });
        }
    }

    /// The faults stop: everything that is broken is repaired, and whoever is down starts.
    pub(super) fn settle_down(&mut self) -> Result<(), Violation> {
        self.links.heal();
        self.weather = self.swarm.weather.calm();
        for machine in self.machines.values_mut() {
            machine.slow_micros = 0;
            machine.stalled_until = 0;
            machine.dies_after = None;
            if let Some(store) = &machine.store {
                store.fail_never();
            }
            machine.paused_until = 0;
            // What it missed while it stood still is not long in coming.
            let (name, boot) = (machine.name, machine.boot);
            self.queue.push(0, Event::Wake { machine: name, boot });
            self.queue.push(1_000, Event::Synced { machine: name, boot });
        }
        let full: Vec<Name> = self.machines.values().filter(|machine| machine.full).map(|it| it.name).collect();
        full.into_iter().try_for_each(|name| self.set_full(name, false))?;
        let down: Vec<Name> =
            self.machines.values().filter(|machine| machine.duty == Duty::Down).map(|it| it.name).collect();
        down.into_iter().try_for_each(|name| self.start(name))
    }
}
