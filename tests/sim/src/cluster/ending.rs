//! What a world goes through: it forms, suffers, heals, works undisturbed, is read once more, and rests.

use std::collections::VecDeque;

use specter_dht::Freshness;
use specter_dht::kv::{Key, Operation};

use super::client::{Client, Kind};
use super::swarm::micros;
use super::traffic::Volume;
use super::world::{Event, World};
use crate::network::LATEST_MICROS;
use crate::{Outcome, Violation};

/// How often the whole is looked at.
const LOOK_MICROS: u64 = 200_000;
/// For how long it must have been one: what was lost before the links healed is noticed only later.
const STEADY_MICROS: u64 = 4_000_000;
/// For how long clients work undisturbed once the cluster is one again, and every request must be answered.
const BUSY_MICROS: u64 = 3_000_000;
/// After this much of that time at the latest, what was under way when the cluster became one is over.
const SETTLING_MICROS: u64 = 1_000_000;
/// For how long replicas may differ after the last write.
const EQUAL_MICROS: u64 = 20_000_000;
/// For how long the cluster rests, and what it says meanwhile is counted.
const IDLE_MICROS: u64 = 10_000_000;
/// How many clients read everything once more at the end.
const AUDITORS: u64 = 8;

/// Where a world is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    /// The cluster comes about.
    Forming,
    /// Faults happen.
    Chaos { until: u64 },
    /// Nothing fails any more.
    Healing { since: u64, steady: Option<u64> },
    /// The cluster is one again, and clients ask.
    Busy { since: u64 },
    /// Nobody asks anything: replicas become equal.
    Equal { since: u64 },
    /// Everything is read once more.
    Audit { since: u64 },
    /// All is done, and what nodes still say is counted.
    Idle { since: u64, before: Volume },
    /// The end.
    Over,
}

impl Phase {
    pub(super) const fn is_chaos(self) -> bool {
        matches!(self, Self::Chaos { .. })
    }

    /// Whether faults have stopped.
    pub(super) const fn is_calm(self) -> bool {
        !matches!(self, Self::Forming | Self::Chaos { .. })
    }

    /// Whether the cluster is one again.
    pub(super) const fn is_settled(self) -> bool {
        self.is_calm() && !matches!(self, Self::Healing { .. })
    }

    /// Whether clients ask of their own accord.
    pub(super) const fn clients_ask(self) -> bool {
        matches!(self, Self::Forming | Self::Chaos { .. } | Self::Healing { .. } | Self::Busy { .. })
    }

    /// Whether a request that was made at some time must be answered.
    pub(super) const fn must_answer(self, called: u64) -> bool {
        match self {
            Self::Busy { since } => called >= since + SETTLING_MICROS,
            Self::Audit { .. } | Self::Equal { .. } => true,
            Self::Forming | Self::Chaos { .. } | Self::Healing { .. } | Self::Idle { .. } | Self::Over => false,
        }
    }
}

impl World {
    /// Runs the world of a seed to its end, or to the first broken promise.
    pub(crate) fn run(mut self) -> Outcome {
        if let Err(violation) = self.play() {
            self.describe_violation(violation);
        }
        self.outcome.micros = self.queue.time();
        self.outcome
    }

    /// Notes that a promise was broken, and what helps to understand why.
    pub(super) fn describe_violation(&mut self, violation: Violation) {
        let described = self.describe();
        self.outcome.notes.extend(described);
        self.outcome.violation = Some((violation, self.queue.time()));
    }

    /// Starts the machines that are there from the beginning.
    pub(super) fn begin_all(&mut self) {
        let at_first: Vec<_> = self.machines.keys().copied().take(self.swarm.nodes.try_into().unwrap_or(1)).collect();
        for name in at_first {
            let after = if name.0 == 1 { 0 } else { self.random.below(500_000) };
            self.queue.push(after, Event::Start { machine: name, boot: 0 });
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.begin_all();
        for client in 1..=self.swarm.clients + self.swarm.probes {
            let after = self.random.below(10_000);
            self.queue.push(after, Event::Begin { client });
        }
        if !self.swarm.forms_first {
            self.begin_chaos();
        }
        self.queue.push(LOOK_MICROS, Event::Look);
        self.play_out()
    }

    /// The faults of a scenario are over: the rest is as in every world.
    pub(super) fn play_on(&mut self) -> Result<(), Violation> {
        self.phase = Phase::Healing { since: self.queue.time(), steady: None };
        self.settle_down()?;
        self.queue.push(LOOK_MICROS, Event::Look);
        self.play_out()
    }

    fn play_out(&mut self) -> Result<(), Violation> {
        while !matches!(self.phase, Phase::Over) {
            self.run_until(self.queue.time() + LOOK_MICROS)?;
        }
        self.conclude()
    }

    /// A client that asks of its own accord and has had no answer since the cluster became one.
    fn unanswered(&self) -> Option<&Client> {
        let asks = |client: &&Client| !matches!(client.kind, Kind::Told);
        self.clients.iter().filter(asks).find(|client| client.calm_answers == 0)
    }

    fn nobody_waits(&self) -> bool {
        self.clients.iter().all(|client| client.pending.is_none())
    }

    fn begin_chaos(&mut self) {
        self.weather = self.swarm.weather;
        self.phase = Phase::Chaos { until: self.queue.time() + self.swarm.chaos_micros };
        self.queue.push(self.swarm.fault_gap_micros.0, Event::Fault);
    }

    /// Looks at the whole, and goes on to the next phase when it is time.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        let time = self.queue.time();
        self.outcome.most("events waiting", self.queue.len() as u64);
        match self.phase {
            Phase::Forming => {
                let unsettled = self.unsettled();
                if unsettled.is_none() {
                    self.outcome.most("ms until the cluster had formed", time / 1000);
                    self.begin_chaos();
                } else if time > self.swarm.recovery_micros() {
                    return Err(Violation::Stuck(format!("did not form: {}", unsettled.unwrap_or_default())));
                }
            }
            Phase::Chaos { until } if time >= until => {
                let longest = self.waits.take(time);
                self.outcome.most("ms a key could not be had under faults", longest / 1000);
                self.phase = Phase::Healing { since: time, steady: None };
                self.tell(|| "the faults stop".into());
                self.settle_down()?;
            }
            Phase::Chaos { .. } | Phase::Over => {}
            Phase::Healing { since, steady } => self.healing(since, steady)?,
            Phase::Busy { since } => self.busy(since)?,
            Phase::Audit { since } => {
                if self.agenda.is_empty() && self.nobody_waits() {
                    self.phase = Phase::Idle { since: time, before: self.traffic.total() };
                } else if time > since + 600_000_000 {
                    return Err(Violation::Stuck("the last reading does not come to an end".into()));
                }
            }
            Phase::Equal { .. } if !self.nobody_waits() => {}
            Phase::Equal { since } => match self.unequal() {
                None => self.begin_audit(),
                Some(text) if time > since + EQUAL_MICROS => return Err(Violation::Stuck(text)),
                Some(_) => {}
            },
            Phase::Idle { since, before } if time >= since + IDLE_MICROS => {
                self.count_idle(before, time - since)?;
                self.phase = Phase::Over;
            }
            Phase::Idle { .. } => {}
        }
        self.queue.push(LOOK_MICROS, Event::Look);
        Ok(())
    }

    fn healing(&mut self, since: u64, steady: Option<u64>) -> Result<(), Violation> {
        let time = self.queue.time();
        let unsettled = self.unsettled();
        let from = steady.filter(|_| unsettled.is_none()).unwrap_or(time);
        self.phase = Phase::Healing { since, steady: unsettled.is_none().then_some(from) };
        let Some(text) = unsettled else {
            // A copy from before the faults stopped can make a machine that has left seem to live for a moment.
            if time < from + STEADY_MICROS || time < since + LATEST_MICROS {
                return Ok(());
            }
            self.outcome.most("ms until the cluster was one again", (from - since) / 1000);
            self.tell(|| "the cluster is one again".into());
            let longest = self.waits.take(time);
            self.outcome.most("ms a key could not be had while healing", longest / 1000);
            self.phase = Phase::Busy { since: time };
            return Ok(());
        };
        let bound = self.swarm.recovery_micros();
        if time > since + bound {
            return Err(Violation::Stuck(format!("{} s after the faults: {text}", bound / 1_000_000)));
        }
        Ok(())
    }

    fn busy(&mut self, since: u64) -> Result<(), Violation> {
        let time = self.queue.time();
        if let Some(text) = self.unsettled() {
            return Err(Violation::Stuck(format!("the cluster was one again and fell apart: {text}")));
        }
        // Clients that wait, wait for what was asked before; then they stop.
        if time < since + BUSY_MICROS + SETTLING_MICROS {
            return Ok(());
        }
        let slowest = self.swarm.think_micros.1;
        if let Some(client) = self.unanswered()
            && time > since + BUSY_MICROS + SETTLING_MICROS + slowest + 10_000_000
        {
            return Err(Violation::Stuck(format!("client {} has no answer", client.id)));
        }
        if self.unanswered().is_none() {
            let longest = self.waits.take(time);
            self.outcome.most("ms a key could not be had when all was well", longest / 1000);
            self.phase = Phase::Equal { since: time };
        }
        Ok(())
    }

    /// Every key is read once more, by some nodes for sure and by others as a hint.
    fn begin_audit(&mut self) {
        let keys: Vec<Key> = self.history.keys().keys().cloned().collect();
        let read =
            |operation: Operation, freshness| keys.iter().map(move |key| (key.clone(), operation.clone(), freshness));
        let sure = Freshness::Linearizable;
        self.agenda = read(Operation::Get, sure).chain(read(Operation::List, sure)).collect::<VecDeque<_>>();
        self.agenda.extend(read(Operation::Get, Freshness::Hint));
        self.outcome.count_many("keys read once more", keys.len() as u64);
        self.phase = Phase::Audit { since: self.queue.time() };
        for _ in 0..AUDITORS {
            let id = self.add_client(Kind::Told);
            self.queue.push(id, Event::Begin { client: id });
        }
    }

    fn count_idle(&mut self, before: Volume, span_micros: u64) -> Result<(), Violation> {
        let after = self.traffic.total();
        let nodes = self.up().count().max(1) as u64;
        let rate = |count: u64| count * 1_000_000 / span_micros.max(1) / nodes;
        let packets = rate(after.packets - before.packets);
        self.outcome.most("packets a node and second at rest", packets);
        self.outcome.most("bytes a node and second at rest", rate(after.bytes - before.bytes));
        let most = self.idle_packets(nodes);
        if packets > most {
            let text = format!("{packets} packets a node and second at rest, more than {most}");
            return Err(Violation::Unbounded(text));
        }
        Ok(())
    }

    /// The most packets a node may send in a second at rest: its virtual nodes ask and answer, absent machines and seeds
    /// are greeted, and leaders ask their members at every heartbeat; all of it twice over.
    fn idle_packets(&self, nodes: u64) -> u64 {
        let settings = &self.swarm.settings;
        let each_second = |span: std::time::Duration| 1_000_000 / micros(span).max(1) + 1;
        let ring = u64::from(self.swarm.seats.1) * 4 * each_second(settings.ring.stabilize);
        let probes = 4 * each_second(settings.ring.probe);
        let members = u64::from(self.swarm.terms.replicas).min(nodes) - 1;
        let pairs = (u64::from(self.swarm.terms.slots()) * members * 2).div_ceil(nodes);
        let placement = u64::from(self.swarm.terms.slots()) * 8 * each_second(settings.placement) / nodes;
        2 * (ring + probes + pairs * each_second(settings.slot.heartbeat) + placement) + 10
    }

    /// What is judged when all is over.
    pub(super) fn conclude(&mut self) -> Result<(), Violation> {
        for index in 0..self.clients.len() {
            if let Some(pending) = self.clients[index].pending.take() {
                self.leave_open(pending);
            }
        }
        self.outcome.most("things a node wanted at once", self.watch.most_outputs as u64);
        self.outcome.most("bytes of the largest packet", self.traffic.largest_bytes as u64);
        self.outcome.count_many("configurations chosen", self.watch.configurations() as u64);
        let total = self.traffic.total();
        self.outcome.count_many("packets", total.packets);
        self.outcome.count_many("bytes", total.bytes);
        self.history.check(&mut self.outcome)
    }
}
