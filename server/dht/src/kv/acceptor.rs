//! What a member answers to candidates and leaders (rules A1 to A8).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::kv::outbox::Outbox;
use crate::kv::{Config, Durable, Entry, Key, Message, Register, Registers, Report, Rule, Rules};
use crate::{Ballot, Instant, NodeId, Version};

/// The voting half of a slot.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    me: NodeId,
    rules: Rules,
    sticky: Duration,
    pub(crate) durable: Durable,
    /// Whether there is no room on the disk but for what is small.
    pub(crate) full: bool,
    /// Where in the log the promise stands: all that an answer to `Confirm` rests on.
    pub(crate) promise_position: u64,
    /// Who led when it was last heard, and when that was.
    pub(crate) leader: Option<(NodeId, Instant)>,
}

impl Acceptor {
    pub(crate) const fn new(me: NodeId, rules: Rules, sticky: Duration, durable: Durable) -> Self {
        Self { me, rules, sticky, durable, full: false, promise_position: 0, leader: None }
    }

    /// Whether the node has a vote in the newest configuration it knows.
    pub(crate) fn is_member(&self) -> bool {
        self.durable.config.contains(self.me)
    }

    /// Whether nobody else has a say in the newest configuration it knows, so that nobody else can lead.
    pub(crate) fn is_alone(&self) -> bool {
        self.durable.config.audience() == BTreeSet::from([self.me])
    }

    /// Whether the newest configuration it knows omits the node, which does not know whether that one is chosen.
    pub(crate) fn is_unsure(&self) -> bool {
        !self.durable.chosen && !self.is_member()
    }

    pub(crate) fn append(&mut self, entry: Entry, outbox: &mut Outbox) {
        self.durable.apply(&entry);
        outbox.append(entry);
    }

    /// A2.
    pub(crate) fn prepare(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        config: Version,
        instead_of: Option<Ballot>,
        outbox: &mut Outbox,
    ) {
        let durable = &self.durable;
        // Who is out but does not know it would otherwise unseat leaders for ever, or ask for ever while somebody leads. Who
        // knows of a newer configuration may be in again, and then it is this member that does not know it.
        let newest = durable.chosen && durable.config.version >= config;
        let omitted = newest && durable.config.is_stable() && !durable.config.contains(from);
        if omitted && self.is_member() {
            return self.nack(from, ballot, outbox);
        }
        let gone = instead_of == Some(self.durable.promise);
        let led = self.leader.is_some_and(|(leader, heard)| leader != from && now.since(heard) < self.sticky) && !gone;
        if led && from != self.me {
            return;
        }
        if !self.is_whole() {
            return;
        }
        if ballot < self.durable.promise {
            return self.nack(from, ballot, outbox);
        }
        self.promise(ballot, outbox);
        let report = Report {
            config: self.durable.config.clone(),
            chosen: self.durable.chosen,
            tenure: self.durable.tenure,
            mark: self.durable.mark,
            seq: self.durable.seq,
            digest: self.durable.digest,
        };
        outbox.send_after(outbox.position(), from, Message::Promise { ballot, report: Box::new(report) });
    }

    /// Gives a candidate that has this member's promise a part of what it holds; says whether it did.
    pub(crate) fn fetch(
        &self,
        from: NodeId,
        ballot: Ballot,
        after: Option<Key>,
        size: usize,
        outbox: &mut Outbox,
    ) -> bool {
        let durable = &self.durable;
        if ballot < durable.promise {
            self.nack(from, ballot, outbox);
        }
        if ballot != durable.promise {
            return false;
        }
        let size_of = |key: &Key, register: &Register| key.len() + register.size();
        let (registers, more) = page(&durable.registers, after.as_ref(), size, size_of);
        let registers = registers.into_iter().map(|(key, (version, register))| (key, version, register)).collect();
        let tenure = durable.tenure;
        outbox.send_after(outbox.position(), from, Message::Held { ballot, tenure, after, registers, more });
        true
    }

    /// Tells the leader which values of its keys this member holds.
    pub(crate) fn list(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        after: Option<Key>,
        size: usize,
        outbox: &mut Outbox,
    ) {
        if !self.follow(now, from, ballot, outbox) {
            return;
        }
        let (registers, more) = page(&self.durable.registers, after.as_ref(), size, |key, _| key.len() + 32);
        let mut versions: Vec<_> = registers.into_iter().map(|(key, (version, _))| (key, version)).collect();
        let last = versions.last().map(|(key, _)| key.clone()).filter(|_| more);
        let lost = self.durable.lost.keys().filter(|key| Some(*key) > after.as_ref());
        let lost = lost.filter(|key| last.as_ref().is_none_or(|last| *key < last));
        versions.extend(lost.map(|key| (key.clone(), Version::default())));
        versions.sort_unstable();
        outbox.send_after(outbox.position(), from, Message::Listed { ballot, after, versions, more });
    }

    /// A value can no longer be read from the disk. Says whether it was one that this member holds.
    pub(crate) fn forget(&mut self, key: &Key, outbox: &mut Outbox) -> bool {
        let Some((version, _)) = self.durable.registers.get(key) else { return false };
        let (key, version) = (key.clone(), *version);
        self.append(Entry::Lost { key, version }, outbox);
        true
    }

    /// Whether this member holds all that it ever accepted. Who does not has no say in who leads: it could not tell the
    /// candidate of a value that nobody else may have.
    pub(crate) fn is_whole(&self) -> bool {
        self.durable.lost.is_empty() || !self.rules.keeps(Rule::VoteWhole)
    }

    /// A3.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        key: Key,
        version: Version,
        register: Arc<Register>,
        config: Version,
        outbox: &mut Outbox,
    ) {
        // Of a write that is dropped because the disk is behind another copy comes before long.
        if !self.follow(now, from, ballot, outbox) || outbox.is_full() {
            return;
        }
        if self.full {
            return outbox.send(from, Message::Full { ballot });
        }
        if self.durable.config.version < config {
            return outbox.send(from, Message::Behind { ballot, key });
        }
        if self.durable.config.version == config && !self.durable.chosen {
            // Nothing is written in a configuration that is not chosen.
            self.learn(Config { leaving: None, ..self.durable.config.clone() }, outbox);
        }
        let since = self.durable.config.since(self.me);
        if since.is_none() || self.durable.tenure != since {
            return;
        }
        match self.durable.accept(&key, version, &register) {
            Ordering::Less => return,
            // A copy: the answer may have been lost.
            Ordering::Equal => {}
            Ordering::Greater => outbox.append(Entry::Accept { key: key.clone(), version, register }),
        }
        outbox.send_after(outbox.position(), from, Message::Accepted { ballot, key, version });
    }

    /// A4.
    pub(crate) fn accept_config(
        &mut self,
        now: Instant,
        from: NodeId,
        ballot: Ballot,
        config: Config,
        outbox: &mut Outbox,
    ) {
        if !self.follow(now, from, ballot, outbox) || config.version < self.durable.config.version {
            return;
        }
        let admitted = config.since(self.me);
        if self.full && admitted.is_some() && admitted != self.durable.tenure {
            // What it would be sent as a new member has no room.
            return outbox.send(from, Message::Full { ballot });
        }
        let version = config.version;
        if version > self.durable.config.version {
            self.append(Entry::Config { config, chosen: false }, outbox);
        }
        outbox.send_after(outbox.position(), from, Message::ConfigAccepted { ballot, version });
    }

    /// A5.
    pub(crate) fn confirm(&mut self, now: Instant, from: NodeId, ballot: Ballot, round: u64, outbox: &mut Outbox) {
        if ballot.counter == 0 {
            // No leader's: whoever asks so wants to be told what is known.
            return self.nack(from, ballot, outbox);
        }
        if self.follow(now, from, ballot, outbox) {
            let known = self.durable.chosen.then_some(self.durable.config.version);
            let (full, digest) = (self.full, self.durable.lost.is_empty().then_some(self.durable.digest));
            outbox.send_after(self.promise_position, from, Message::Confirmed { ballot, round, known, full, digest });
        }
    }

    /// A7.
    pub(crate) fn purge(&mut self, ballot: Ballot, key: Key, version: Version, outbox: &mut Outbox) {
        let held = self.durable.registers.get(&key).map(|(held, _)| held).or(self.durable.lost.get(&key));
        let held = held.is_some_and(|held| *held == version);
        if held && ballot >= self.durable.promise {
            self.append(Entry::Purge { key, version }, outbox);
        }
    }

    /// A8: takes in a configuration that is known to be chosen.
    pub(crate) fn learn(&mut self, config: Config, outbox: &mut Outbox) {
        let newer = config.version > self.durable.config.version;
        if newer || (config.version == self.durable.config.version && !self.durable.chosen) {
            self.append(Entry::Config { config, chosen: true }, outbox);
        }
    }

    fn promise(&mut self, ballot: Ballot, outbox: &mut Outbox) {
        if ballot > self.durable.promise {
            self.append(Entry::Promise(ballot), outbox);
            self.promise_position = outbox.position();
        }
    }

    /// Whether the sender leads, as far as this member may know.
    fn follow(&mut self, now: Instant, from: NodeId, ballot: Ballot, outbox: &mut Outbox) -> bool {
        if ballot < self.durable.promise {
            self.nack(from, ballot, outbox);
            return false;
        }
        self.promise(ballot, outbox);
        self.leader = Some((from, now));
        true
    }

    fn nack(&self, to: NodeId, ballot: Ballot, outbox: &mut Outbox) {
        let durable = &self.durable;
        let (config, chosen) = (durable.config.clone(), durable.chosen);
        // It tells of a promise that may not be on the disk, which can only make the other more careful; but of a
        // configuration only when that is sure to stay.
        outbox.send_after(outbox.position(), to, Message::Nack { ballot, promised: durable.promise, config, chosen });
    }

    /// Forgets what a variant without the rule forgets at a restart.
    pub(crate) fn restarted(mut self) -> Self {
        if !self.rules.keeps(Rule::KeepPromise) {
            self.durable.promise = Ballot::default();
        }
        self
    }
}

/// Some keys in order, with what is held of them.
type Part = Vec<(Key, (Version, Arc<Register>))>;

/// Of what is held the next part after a key: as much as goes into so many bytes, and one value at least. Says whether
/// there is more.
fn page(
    registers: &Registers,
    after: Option<&Key>,
    size: usize,
    size_of: impl Fn(&Key, &Register) -> usize,
) -> (Part, bool) {
    let after = after.map_or(Bound::Unbounded, Bound::Excluded);
    let (mut page, mut left) = (Vec::new(), size);
    for (key, held) in registers.range::<Key, _>((after, Bound::Unbounded)) {
        let size = size_of(key, &held.1);
        if size > left && !page.is_empty() {
            return (page, true);
        }
        left = left.saturating_sub(size);
        page.push((key.clone(), held.clone()));
    }
    (page, false)
}
