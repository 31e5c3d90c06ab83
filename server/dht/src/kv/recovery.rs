//! How a candidate gets hold of everything that those hold whose promises it counts (rule L2).
//!
//! A promise says what the member holds only in a few bytes. If that is what the candidate holds itself, there is nothing
//! to read; else the candidate reads all of it, part by part. The parts fit together, and are what the promise told of:
//! - A member gives parts only while its promise is this very ballot. Since it promised, no lower ballot has changed
//!   anything it holds, and the one who claims this ballot does not lead yet.
//! - All the same, its registers can go in the meantime, because it learned that it is out of the slot, or is in it anew.
//!   Then its tenure is another one, which each part tells.
//! - What was read to its end must come to the digest of the promise. So parts that are lost, doubled, or out of order
//!   cost time at most.
//!
//! What counts is therefore what every counted member held when it promised, just as if the promise had carried it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kv::election::Candidate;
use crate::kv::keys::Held;
use crate::kv::leader::Leader;
use crate::kv::roster::Roster;
use crate::kv::slot::Role;
use crate::kv::{Config, Digest, Key, Message, Register, Registers, Report, Rule, Rules, Slot};
use crate::{Ballot, Instant, NodeId, Version};

/// What was read so far of what a member holds.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reading {
    registers: Registers,
    digest: Digest,
    done: bool,
}

impl Reading {
    fn last(&self) -> Option<&Key> {
        self.registers.last_key_value().map(|(key, _)| key)
    }
}

/// A part of what a member holds.
pub(crate) struct Page {
    pub(crate) tenure: Option<Version>,
    pub(crate) after: Option<Key>,
    pub(crate) registers: Vec<(Key, Version, Arc<Register>)>,
    pub(crate) more: bool,
}

/// Whether what a member holds counts in a configuration.
fn counts(report: &Report, node: NodeId, config: &Config) -> bool {
    report.tenure.is_some() && report.tenure == config.since(node)
}

impl Candidate {
    /// Those of whose promises nothing is left to read: they hold nothing that counts, or the same as the candidate, or
    /// it was read to its end.
    fn complete(&self, me: NodeId, config: &Config, rules: Rules) -> BTreeSet<NodeId> {
        let own = self.reports.get(&me).filter(|own| counts(own, me, config));
        let complete = |(node, report): &(&NodeId, &Report)| {
            !counts(report, **node, config)
                || own.is_some_and(|own| own.digest == report.digest)
                || self.readings.get(node).is_some_and(|reading| reading.done)
                || !rules.keeps(Rule::ReadReports)
        };
        self.reports.iter().filter(complete).map(|(node, _)| *node).collect()
    }
}

impl Slot {
    /// Asks everybody for what they hold of whose promise that is still to be read; says of whose it is not.
    pub(crate) fn read_reports(&mut self, now: Instant, config: &Config) -> BTreeSet<NodeId> {
        let Role::Candidate(candidate) = &mut self.role else { return BTreeSet::new() };
        let complete = candidate.complete(self.me, config, self.rules);
        for node in candidate.reports.keys().filter(|node| !complete.contains(node)) {
            if !candidate.readings.contains_key(node) {
                candidate.readings.insert(*node, Reading::default());
                candidate.ask_again_at = now + self.settings.heartbeat;
                self.outbox.send(*node, Message::Fetch { ballot: candidate.ballot, after: None });
            }
        }
        complete
    }

    /// The candidate's time is up, or only the time in which a part should have come.
    pub(crate) fn go_on(&mut self, now: Instant) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if now >= candidate.deadline {
            return self.campaign_failed(now);
        }
        candidate.ask_again_at = now + self.settings.heartbeat;
        for (node, reading) in candidate.readings.iter().filter(|(_, reading)| !reading.done) {
            let (ballot, after) = (candidate.ballot, reading.last().cloned());
            self.outbox.send(*node, Message::Fetch { ballot, after });
        }
    }

    /// A part has come. A candidacy is at its end when that cannot be what was promised.
    pub(crate) fn page(&mut self, now: Instant, from: NodeId, ballot: Ballot, page: Page) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        let Candidate { reports, readings, .. } = candidate;
        let (Some(report), Some(reading)) = (reports.get(&from), readings.get_mut(&from)) else { return };
        if candidate.ballot != ballot || reading.done || reading.last() != page.after.as_ref() {
            return;
        }
        let mut sound = page.tenure == report.tenure && !(page.more && page.registers.is_empty());
        for (key, version, register) in page.registers {
            sound &= reading.last().is_none_or(|last| *last < key) && reading.digest.keys < report.digest.keys;
            if !sound {
                break;
            }
            reading.digest.add(&key, version);
            // What the candidate has itself it need not have twice.
            let own = self.acceptor.durable.registers.get(&key).filter(|(own, _)| *own == version);
            let register = own.map_or(register, |(_, own)| Arc::clone(own));
            reading.registers.insert(key, (version, register));
        }
        reading.done = !page.more;
        if !sound || (reading.done && reading.digest != report.digest) {
            return self.give_up(now);
        }
        candidate.deadline = candidate.deadline.max(now + self.settings.election).min(candidate.last_deadline);
        candidate.ask_again_at = now + self.settings.heartbeat;
        if reading.done {
            self.consider(now);
        } else {
            let after = reading.last().cloned();
            self.outbox.send(from, Message::Fetch { ballot, after });
        }
    }

    /// Leads, with all that the `complete` hold.
    pub(crate) fn lead(&mut self, now: Instant, config: Config, complete: &BTreeSet<NodeId>) {
        let Role::Candidate(Candidate { ballot, reports, readings, .. }) =
            std::mem::replace(&mut self.role, Role::Follower)
        else {
            return;
        };
        let durable = &self.acceptor.durable;
        let own = reports.get(&self.me).filter(|own| counts(own, self.me, &config));
        // What the candidate holds itself may be gone since it promised.
        if own.is_some_and(|own| own.tenure != durable.tenure || own.digest != durable.digest) {
            return self.give_up(now);
        }
        let mut seq = 0;
        let mut sources: Vec<(&Registers, Vec<NodeId>)> = Vec::new();
        if let Some(own) = own {
            let same =
                |(node, report): &(&NodeId, &Report)| report.digest == own.digest && counts(report, **node, &config);
            sources.push((&durable.registers, reports.iter().filter(same).map(|(node, _)| *node).collect()));
        }
        for (node, report) in &reports {
            seq = seq.max(report.mark.seq).max(report.seq).max(report.config.version.seq);
            if let Some(reading) =
                readings.get(node).filter(|_| complete.contains(node) && counts(report, *node, &config))
            {
                sources.push((&reading.registers, vec![*node]));
            }
        }
        if !self.rules.keeps(Rule::SequenceGrows) {
            seq = 0;
        }
        let roster = Roster::new(&config);
        // What the only member holds is chosen: nobody else's copy can come up later.
        let confirmed = config.audience() == BTreeSet::from([self.me]) || !self.rules.keeps(Rule::RewriteRecovered);
        let table = newest(now, &sources, &roster, confirmed);
        (self.failures, self.blocked_since) = (0, None);
        self.role = Role::Leader(Box::new(Leader::new(now, ballot, seq, config, roster, table)));
        self.lead_on(now, Leader::open);
    }
}

/// The newest value of each key and who holds it; unless it is confirmed, none of it is to be trusted yet.
fn newest(
    now: Instant,
    sources: &[(&Registers, Vec<NodeId>)],
    roster: &Roster,
    confirmed: bool,
) -> BTreeMap<Key, Held> {
    let hold = |(version, register): &(Version, Arc<Register>), holders| Held {
        version: *version,
        register: Arc::clone(register),
        confirmed,
        holders,
        touched: now,
        // A lease is never cut short: its whole time starts anew.
        lease_until: register.lease().map(|lease| now + lease.ttl),
    };
    let holders = |nodes: &[NodeId]| roster.subset(nodes.iter().copied());
    let Some(((registers, nodes), others)) = sources.split_first() else { return BTreeMap::new() };
    // In order, as a tree is built fastest: most often this is all there is.
    let first = holders(nodes);
    let mut table: BTreeMap<Key, Held> = registers.iter().map(|(key, held)| (key.clone(), hold(held, first))).collect();
    for (registers, nodes) in others {
        let holders = holders(nodes);
        for (key, held) in *registers {
            match table.get_mut(key) {
                Some(known) if known.version > held.0 => {}
                Some(known) if known.version == held.0 => holders.seats().for_each(|seat| known.holders.insert(seat)),
                Some(_) | None => {
                    table.insert(key.clone(), hold(held, holders));
                }
            }
        }
    }
    table
}
