//! One node's part in one slot: takes inputs in, hands outputs out.

use std::time::Duration;

use crate::kv::acceptor::Acceptor;
use crate::kv::election::Candidate;
use crate::kv::leader::{Context, Leader};
use crate::kv::limits::MEMBERS_MAX;
use crate::kv::outbox::Outbox;
use crate::kv::recovery::Page;
use crate::kv::returning::Returning;
use crate::kv::{
    Answer, Config, Durable, Entry, Input, Key, Message, Operation, Output, Refusal, Register, Request, RequestId,
    Rules, Settings,
};
use crate::{Instant, NodeId, Random, Version};

/// How many times the wait between two elections doubles.
const DOUBLINGS: u32 = 4;

/// How long a candidate keeps still that was told it is no longer a member.
const PASSIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// Who should keep the slot.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) nodes: Vec<NodeId>,
    /// From when on the ring is believed.
    pub(crate) due: Instant,
}

/// What the node is at the moment; nothing of it outlives a restart.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    Follower,
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// One node's part in one slot.
#[derive(Clone, Debug)]
pub struct Slot {
    pub(crate) me: NodeId,
    pub(crate) rules: Rules,
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) acceptor: Acceptor,
    pub(crate) outbox: Outbox,
    pub(crate) role: Role,
    /// The highest counter of any ballot seen, so that the next candidacy is above it.
    pub(crate) counter_seen: u32,
    pub(crate) election_at: Instant,
    /// Elections that came to nothing since a leader was last heard.
    pub(crate) failures: u32,
    /// Since when elections fail only for want of the new side of a joint configuration.
    pub(crate) blocked_since: Option<Instant>,
    /// Since it started it asks whether somebody leads.
    pub(crate) returning: Option<Returning>,
    wanted: Option<Wanted>,
    may_change: bool,
    refused: u64,
}

impl Slot {
    /// A node's part in a slot, as its log tells it. A slot's founders start with one entry: their configuration, chosen.
    pub fn new(
        me: NodeId,
        settings: Settings,
        rules: Rules,
        random: Random,
        now: Instant,
        log: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut durable = Durable::new(me, rules);
        let mut entries = 0;
        for entry in log {
            durable.apply(&entry);
            entries += 1;
        }
        let mut slot = Self::resume(me, settings, rules, random, now, durable);
        slot.outbox = Outbox::new(me, rules, entries);
        slot
    }

    /// A node's part in a slot, as its disk tells it. Positions of the log count from here.
    pub fn resume(
        me: NodeId,
        settings: Settings,
        rules: Rules,
        random: Random,
        now: Instant,
        durable: Durable,
    ) -> Self {
        let acceptor = Acceptor::new(me, rules, settings.sticky, durable).restarted();
        let mut slot = Self {
            me,
            rules,
            settings,
            random,
            acceptor,
            outbox: Outbox::new(me, rules, 0),
            role: Role::Follower,
            counter_seen: 0,
            election_at: now,
            failures: 0,
            blocked_since: None,
            returning: None,
            wanted: None,
            may_change: true,
            refused: 0,
        };
        slot.return_to_others(now);
        slot
    }

    /// Takes one input in; afterwards drain [`Self::poll_output`] until it answers with a timeout.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Timeout => self.tick(now),
            Input::Message { from, message } => {
                if !self.is_sound(from, &message) {
                    self.refused = self.refused.saturating_add(1);
                } else if message.is_answer() || !self.outbox.is_full() {
                    self.receive(now, from, message);
                }
            }
            Input::Request { id, request } => self.request(now, id, request),
            Input::Persisted { upto } => self.outbox.persisted(upto),
            Input::Wanted { nodes, hold_off } => self.want(now, nodes, now + hold_off),
            Input::Permit { may_change } => {
                self.may_change = may_change;
                self.reconsider(now);
            }
            Input::ReadOnly(full) => self.acceptor.full = full,
            Input::Force => self.force(now),
            Input::HandOver => self.lead_on(now, |leader, _| leader.goes = true),
        }
        while let Some(message) = self.outbox.next_to_self() {
            self.receive(now, self.me, message);
        }
    }

    /// The next thing to be done; a timeout when there is nothing more.
    pub fn poll_output(&mut self) -> Output {
        self.outbox.pop().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// What the node's disk will hold once everything appended is on it.
    pub const fn state(&self) -> &Durable {
        &self.acceptor.durable
    }

    /// How many messages were dropped because no sound node sends them.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The value of a key can no longer be read from the disk: the member gets it anew from the leader, and has no say in
    /// who leads until then. Says whether it held one. Afterwards drain [`Self::poll_output`].
    pub fn forget(&mut self, key: &Key) -> bool {
        self.acceptor.forget(key, &mut self.outbox)
    }

    /// The configuration in which this node answers requests, if it leads.
    pub fn leads(&self) -> Option<&Config> {
        match &self.role {
            Role::Leader(leader) if leader.is_open() => Some(&leader.config),
            Role::Leader(_) | Role::Candidate(_) | Role::Follower => None,
        }
    }

    /// Whether the node has a vote in the newest configuration it knows, and has had it without a break.
    pub fn is_member(&self) -> bool {
        let durable = self.state();
        durable.tenure.is_some() && durable.tenure == durable.config.since(self.me)
    }

    /// Whether the node counts itself among the members, or does not know whether it still is one, and has not heard of a
    /// leader for so long that the others may have gone on without it.
    pub fn is_adrift(&self, now: Instant) -> bool {
        let leads = matches!(self.role, Role::Leader(_));
        let heard = self.acceptor.leader.is_some_and(|(_, heard)| now.since(heard) < self.settings.step_down);
        !leads && !heard && self.state().config.audience().contains(&self.me)
    }

    /// Whether this node leads the slot and is about to change its members.
    pub fn is_changing(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_changing(),
            Role::Candidate(_) | Role::Follower => false,
        }
    }

    /// About how many bytes the slot keeps, if this node leads it.
    pub fn bytes(&self) -> usize {
        match &self.role {
            Role::Leader(leader) => leader.keys.bytes(),
            Role::Candidate(_) | Role::Follower => 0,
        }
    }

    /// What this node holds, however old it may be: the answer to a hint read; nothing when it is no member.
    pub fn peek(&self, key: &Key, operation: &Operation) -> Option<(Answer, Option<Version>)> {
        if !self.is_member() {
            return None;
        }
        let held = self.state().registers.get(key);
        let answer = held.map_or(const { &Register::EMPTY }, |(_, register)| register).read(operation)?;
        Some((answer, held.map(|(version, _)| *version)))
    }

    /// When the slot wants to be woken if nothing else happens.
    pub fn deadline(&self) -> Instant {
        match &self.role {
            Role::Follower if self.acceptor.is_member() || self.acceptor.is_unsure() => self.election_at,
            Role::Follower => Instant::FAR,
            Role::Candidate(candidate) => candidate.deadline.min(candidate.ask_again_at),
            Role::Leader(leader) => leader.heartbeat_at,
        }
    }

    fn tick(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        match &self.role {
            Role::Follower if self.acceptor.is_unsure() => self.inquire(now),
            Role::Follower => self.miss_leader(now),
            Role::Candidate(_) => self.go_on(now),
            Role::Leader(_) => {
                self.lead_on(now, Leader::upkeep);
                self.reconsider(now);
            }
        }
    }

    fn want(&mut self, now: Instant, nodes: Vec<NodeId>, due: Instant) {
        let once = |node: &NodeId| nodes.iter().filter(|other| *other == node).count() == 1;
        if !(1..=MEMBERS_MAX).contains(&nodes.len()) || !nodes.iter().all(once) {
            return;
        }
        let earlier = self.wanted.as_ref().filter(|known| known.nodes == nodes).map(|known| known.due);
        self.wanted = Some(Wanted { nodes, due: earlier.map_or(due, |earlier| earlier.min(due)) });
        self.reconsider(now);
    }

    /// Begins or undoes a change of members, if this node leads and one is due.
    fn reconsider(&mut self, now: Instant) {
        let wanted = self.wanted.clone().filter(|_| self.may_change);
        self.lead_on(now, |leader, context| leader.reconsider(context, wanted.as_ref()));
    }

    fn request(&mut self, now: Instant, id: RequestId, request: Request) {
        if !request.fits() {
            return self.outbox.push(Output::Reply { id, reply: Err(Refusal::TooLarge), rests_on: None });
        }
        if matches!(self.role, Role::Leader(_)) {
            return self.lead_on(now, |leader, context| leader.request(context, id, request));
        }
        let recent = self.acceptor.leader.filter(|(_, heard)| now.since(*heard) < self.settings.step_down);
        let leader = recent.map(|(leader, _)| leader).filter(|leader| *leader != self.me);
        let members = self.acceptor.durable.config.nodes().into_iter().collect();
        let version = self.acceptor.durable.config.version;
        let reply = Err(Refusal::Redirect { leader, members, version });
        self.outbox.push(Output::Reply { id, reply, rests_on: None });
    }

    fn receive(&mut self, now: Instant, from: NodeId, message: Message) {
        match message {
            Message::Prepare { ballot, config, instead_of } => {
                self.counter_seen = self.counter_seen.max(ballot.counter);
                self.acceptor.prepare(now, from, ballot, config, instead_of, &mut self.outbox);
            }
            Message::Accept { ballot, key, version, register, config } => {
                self.acceptor.accept(now, from, ballot, key, version, register, config, &mut self.outbox);
                self.heard(now, from);
            }
            Message::AcceptConfig { ballot, config } => {
                self.acceptor.accept_config(now, from, ballot, config, &mut self.outbox);
                self.heard(now, from);
            }
            Message::Confirm { ballot, round } => {
                self.acceptor.confirm(now, from, ballot, round, &mut self.outbox);
                self.show_leader(from, ballot);
                self.heard(now, from);
            }
            Message::Purge { ballot, key, version } => self.acceptor.purge(ballot, key, version, &mut self.outbox),
            Message::Succeed { ballot } => self.succeed(now, ballot),
            Message::Learn { config } => self.acceptor.learn(config, &mut self.outbox),
            Message::Promise { ballot, report } => self.promised(now, from, ballot, *report),
            Message::Fetch { ballot, after } => {
                if self.acceptor.fetch(from, ballot, after, self.settings.page_bytes, &mut self.outbox) {
                    // Somebody is on the way to lead.
                    self.postpone_election(now);
                }
            }
            Message::Held { ballot, tenure, after, registers, more } => {
                self.page(now, from, ballot, Page { tenure, after, registers, more });
            }
            Message::List { ballot, after } => {
                self.acceptor.list(now, from, ballot, after, self.settings.page_bytes, &mut self.outbox);
                self.heard(now, from);
            }
            Message::Listed { ballot, after, versions, more } => {
                self.lead_in(now, ballot, |leader, context| {
                    leader.listed(context, from, after.as_ref(), &versions, more);
                });
            }
            Message::Nack { ballot, promised, config, chosen } => {
                self.counter_seen = self.counter_seen.max(promised.counter);
                if chosen {
                    self.acceptor.learn(config, &mut self.outbox);
                }
                self.nacked(now, from, ballot, promised > ballot);
                if ballot.counter == 0 {
                    self.answered(now, from, promised);
                }
            }
            Message::Accepted { ballot, key, version } => {
                self.lead_in(now, ballot, |leader, context| leader.accepted(context, from, key, version));
            }
            Message::Behind { ballot, key } => {
                self.lead_in(now, ballot, |leader, context| leader.behind(context, from, &key));
            }
            Message::Full { ballot } => {
                self.lead_in(now, ballot, |leader, context| leader.refused_for_room(context, from));
            }
            Message::ConfigAccepted { ballot, version } => {
                self.lead_in(now, ballot, |leader, context| leader.config_accepted(context, from, version));
            }
            Message::Confirmed { ballot, round, known, full, digest } => {
                self.lead_in(now, ballot, |leader, context| {
                    leader.compare(context, from, round, digest);
                    leader.confirmed(context, from, round, known, full);
                });
            }
        }
    }

    /// Puts the next election off when the message just taken in came from a leader this member follows.
    fn heard(&mut self, now: Instant, from: NodeId) {
        if self.acceptor.leader != Some((from, now)) || from == self.me {
            return;
        }
        let promise = self.acceptor.durable.promise;
        match &self.role {
            Role::Candidate(candidate) if candidate.ballot < promise => self.role = Role::Follower,
            Role::Leader(leader) if leader.ballot < promise => self.step_down(now),
            Role::Follower | Role::Candidate(_) | Role::Leader(_) => {}
        }
        self.failures = 0;
        self.blocked_since = None;
        self.returning = None;
        self.postpone_election(now);
    }

    /// A node refused a ballot: for a higher one, or because the sender is no longer a member. What somebody promised on whom
    /// this leader does not count is no obstacle to it: a packet of long ago may have asked him.
    fn nacked(&mut self, now: Instant, from: NodeId, ballot: crate::Ballot, outbid: bool) {
        match &self.role {
            Role::Candidate(candidate) if candidate.ballot == ballot => {
                self.give_up(now);
                if !outbid {
                    self.election_at = now + self.random.span(PASSIVE.0, PASSIVE.1);
                }
            }
            Role::Leader(leader) if leader.ballot == ballot && outbid && leader.counts_on(from) => self.step_down(now),
            Role::Follower | Role::Candidate(_) | Role::Leader(_) => {}
        }
    }

    /// Puts the next election off by a random wait that doubles with each failure.
    pub(crate) fn postpone_election(&mut self, now: Instant) {
        let wait = self.settings.election * (1 << self.failures.min(DOUBLINGS));
        self.election_at = now + self.random.span(wait, wait * 2);
    }

    /// The longest that a member waits between two elections.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.settings.election * (2 << DOUBLINGS)
    }

    /// Asks those that should go on without this node whether they do. The question is that of a leader before all others,
    /// which every member refuses with what it knows.
    fn inquire(&mut self, now: Instant) {
        let ballot = crate::Ballot { counter: 0, node: self.me };
        for node in self.acceptor.durable.config.nodes() {
            self.outbox.send(node, Message::Confirm { ballot, round: 0 });
        }
        self.postpone_election(now);
    }

    /// L6.
    fn step_down(&mut self, now: Instant) {
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            leader.close(&mut self.outbox);
        }
        self.postpone_election(now);
    }

    fn lead_in(&mut self, now: Instant, ballot: crate::Ballot, act: impl FnOnce(&mut Leader, &mut Context<'_>)) {
        self.lead_on(now, |leader, context| {
            if leader.ballot == ballot {
                act(leader, context);
            }
        });
    }

    pub(crate) fn lead_on(&mut self, now: Instant, act: impl FnOnce(&mut Leader, &mut Context<'_>)) {
        let Role::Leader(leader) = &mut self.role else { return };
        let (me, rules) = (self.me, self.rules);
        let mut context = Context { now, me, rules, settings: &self.settings, outbox: &mut self.outbox };
        act(leader, &mut context);
        leader.advance(&mut context);
        if leader.over {
            self.step_down(now);
        }
    }
}
