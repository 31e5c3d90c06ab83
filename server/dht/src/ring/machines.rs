//! What this node knows of the other machines: the peer book, and those it only heard of.

use std::collections::BTreeMap;

use crate::{Instant, NodeId, Peer};

/// One other machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Who and where.
    pub(crate) peer: Peer,
    /// The newest life in which it spoke to this node itself.
    life: Option<u64>,
    /// When it last spoke as a member of the ring.
    alive: Option<Instant>,
    /// When it last spoke at all, or was told of.
    seen: Instant,
    /// It did not answer: it may be asked again from then on, and is taken in only after it did answer.
    doubt: Option<Instant>,
    /// A hash of the list that it last told of when it was not the successor.
    pub(crate) told: u64,
    /// Whether it belongs to the book; else only a list or a question holds it.
    kept: bool,
    /// Whether the disk has a row of it.
    stored: bool,
}

/// What came of hearing from a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It speaks from an earlier life.
    Stale,
    /// Nothing new.
    Same,
    /// It is new, or in a new life, or about to go.
    Changed,
}

/// How far the word of others about a machine goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is believed.
    Good,
    /// It has to answer first, and is not to be asked before then.
    Doubtful(Instant),
    /// It is told of in a later life than the one that speaks to this node: it has to be asked.
    Newer,
    /// It has gone, or there is no room for it.
    Refused,
}

/// Why a machine is to have a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Others told of it: it takes the place of nobody who ever spoke.
    ToldOf,
    /// A lookup of this node named it, to be asked.
    Needed,
    /// It spoke itself.
    Spoke,
}

/// All machines this node knows, itself not among them.
#[derive(Clone, Debug)]
pub(crate) struct Machines {
    rows: BTreeMap<NodeId, Machine>,
    bound: usize,
}

impl Machines {
    /// An empty table of at most so many rows.
    pub(crate) const fn new(bound: usize) -> Self {
        Self { rows: BTreeMap::new(), bound }
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Machine> {
        self.rows.get(&id)
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.rows.get(&id).map(|machine| &machine.peer)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Machine> {
        self.rows.get_mut(&id)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= self.bound
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Machine> {
        self.rows.values()
    }

    /// The machines of the book.
    pub(crate) fn book(&self) -> impl Iterator<Item = &Machine> {
        self.rows.values().filter(|machine| machine.kept)
    }

    /// The machines that spoke as members of the ring within that time.
    pub(crate) fn alive_since(&self, since: Instant) -> impl Iterator<Item = &Peer> {
        let alive = move |machine: &&Machine| machine.alive.is_some_and(|alive| alive >= since);
        self.rows.values().filter(alive).map(|machine| &machine.peer)
    }

    /// Puts a machine into the book that did not speak itself: a row of the disk, or one that the store told of.
    pub(crate) fn keep(&mut self, now: Instant, peer: Peer, stored: bool) {
        let known = self.rows.entry(peer.id);
        let machine = known.or_insert_with(|| Machine::told_of(now, peer));
        machine.kept = true;
        machine.seen = now;
        machine.stored |= stored;
    }

    /// This node counts on a machine, which belongs on the disk although it may never have spoken itself. Answers with its
    /// row if that is new.
    pub(crate) fn rely_on(&mut self, now: Instant, id: NodeId) -> Option<Peer> {
        let machine = self.rows.get_mut(&id).filter(|machine| !machine.stored)?;
        (machine.kept, machine.stored, machine.seen) = (true, true, now);
        Some(machine.peer.clone())
    }

    /// A machine has spoken itself.
    pub(crate) fn hear(&mut self, now: Instant, peer: &Peer) -> Heard {
        let Some(machine) = self.rows.get_mut(&peer.id) else {
            let mut machine = Machine::told_of(now, peer.clone());
            machine.speaks(now, peer.incarnation);
            self.rows.insert(peer.id, machine);
            return Heard::Changed;
        };
        if machine.life.is_some_and(|life| peer.incarnation < life) {
            return Heard::Stale;
        }
        let is_new = machine.life.is_none();
        let is_other_life = machine.peer.incarnation != peer.incarnation;
        if is_other_life {
            machine.doubt = None;
            machine.told = 0;
            machine.alive = None;
        }
        machine.speaks(now, peer.incarnation);
        if is_new || is_other_life || (peer.leaving && !machine.peer.leaving) {
            machine.peer = peer.clone();
            return Heard::Changed;
        }
        Heard::Same
    }

    /// Others told of a machine.
    pub(crate) fn learn(&mut self, now: Instant, peer: &Peer) -> Standing {
        let is_full = self.is_full();
        let Some(machine) = self.rows.get_mut(&peer.id) else {
            if is_full {
                return Standing::Refused;
            }
            self.rows.insert(peer.id, Machine::told_of(now, peer.clone()));
            return Standing::Good;
        };
        let (told, known) = (peer.incarnation, machine.peer.incarnation);
        let is_out = machine.doubt.is_some() || machine.peer.leaving;
        if told > known && !is_out {
            if machine.life.is_some() {
                return Standing::Newer;
            }
            machine.peer = peer.clone();
        } else if told != known && is_out && machine.life.is_none_or(|life| told >= life) {
            // What was known of it did not work, so this may be as good; but it has to show it.
            machine.peer = peer.clone();
            machine.told = 0;
            machine.doubt = Some(machine.doubt.map_or(now, |until| until.min(now)));
        }
        if machine.peer.leaving {
            return Standing::Refused;
        }
        machine.doubt.map_or(Standing::Good, Standing::Doubtful)
    }

    /// A machine has answered a question.
    pub(crate) fn answered(&mut self, id: NodeId) {
        if let Some(machine) = self.rows.get_mut(&id) {
            machine.doubt = None;
        }
    }

    /// A machine has spoken as a member of the ring.
    pub(crate) fn lives(&mut self, now: Instant, id: NodeId) {
        if let Some(machine) = self.rows.get_mut(&id) {
            machine.alive = Some(now);
        }
    }

    /// A machine did not answer.
    pub(crate) fn doubt(&mut self, id: NodeId, until: Instant) {
        if let Some(machine) = self.rows.get_mut(&id) {
            machine.doubt = Some(until);
            machine.told = 0;
        }
    }

    /// Drops what nobody needs: machines only told of that nothing holds, and those of whom nobody heard since `since`.
    /// Answers with those that the disk has.
    pub(crate) fn sweep(&mut self, now: Instant, since: Instant, is_held: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut forgotten = Vec::new();
        self.rows.retain(|id, machine| {
            let is_wanted = if machine.kept { machine.seen >= since } else { machine.doubt.is_some_and(|at| at > now) };
            let stays = is_wanted || is_held(*id);
            if !stays && machine.stored {
                forgotten.push(*id);
            }
            stays
        });
        forgotten
    }

    /// Drops one machine that nothing holds, those first of whom is known least and longest ago; only for one that spoke
    /// itself may another one go that spoke itself. Answers with its name and whether the disk has it.
    pub(crate) fn evict(&mut self, is_held: impl Fn(NodeId) -> bool, claim: Claim) -> Option<(NodeId, bool)> {
        let loose = self.rows.values().filter(|machine| claim != Claim::ToldOf || machine.life.is_none());
        let loose = loose.filter(|machine| !is_held(machine.peer.id));
        // Those that are needed together must not take each other's place: the oldest goes, whether it ever spoke or not.
        let has_spoken = |machine: &Machine| machine.life.is_some() && claim != Claim::Needed;
        let victim = loose.min_by_key(|machine| (machine.kept, has_spoken(machine), machine.seen))?.peer.id;
        self.rows.remove(&victim).map(|machine| (victim, machine.stored))
    }
}

impl Machine {
    const fn told_of(now: Instant, peer: Peer) -> Self {
        Self { peer, life: None, alive: None, seen: now, doubt: None, told: 0, kept: false, stored: false }
    }

    const fn speaks(&mut self, now: Instant, life: u64) {
        self.life = Some(life);
        self.seen = now;
        self.kept = true;
        self.stored = true;
    }

    /// Whether it did not answer when it was last asked.
    pub(crate) const fn is_doubted(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether nothing speaks against it.
    pub(crate) const fn is_trusted(&self) -> bool {
        self.doubt.is_none() && !self.peer.leaving
    }

    /// Whether it spoke as a member of the ring at that time or later, and nothing speaks against it.
    pub(crate) fn is_fresh(&self, since: Instant) -> bool {
        self.is_trusted() && self.is_alive(since)
    }

    /// Whether it spoke as a member of the ring at that time or later.
    pub(crate) fn is_alive(&self, since: Instant) -> bool {
        self.alive.is_some_and(|alive| alive >= since)
    }
}
