//! Questions that wait for an answer: one for each machine, asked again each period, given up after the silence.

use std::collections::BTreeMap;

use crate::{Instant, NodeId};

/// An open question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// Names it on the wire.
    pub(crate) number: u64,
    /// Which seat asks.
    pub(crate) seat: usize,
    /// When it was first asked.
    pub(crate) since: Instant,
    /// When it is asked again.
    pub(crate) again: Instant,
    /// Whether the machine was in no list when it was asked.
    pub(crate) is_candidate: bool,
}

/// The open questions by the machine that is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    open: BTreeMap<NodeId, Question>,
}

impl Asks {
    pub(crate) fn is_open(&self, id: NodeId) -> bool {
        self.open.contains_key(&id)
    }

    /// Whether the machine has been asked before that instant and has not answered since.
    pub(crate) fn is_open_since(&self, id: NodeId, before: Instant) -> bool {
        self.open.get(&id).is_some_and(|question| question.since < before)
    }

    pub(crate) fn candidates(&self) -> usize {
        self.open.values().filter(|question| question.is_candidate).count()
    }

    pub(crate) fn open(&mut self, id: NodeId, question: Question) {
        self.open.insert(id, question);
    }

    /// The question of this number, which is answered now.
    pub(crate) fn answer(&mut self, id: NodeId, number: u64) -> Option<Question> {
        self.open.get(&id).filter(|question| question.number == number)?;
        self.open.remove(&id)
    }

    pub(crate) fn give_up(&mut self, id: NodeId) {
        self.open.remove(&id);
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.open.values().map(|question| question.again).min().unwrap_or(Instant::FAR)
    }

    pub(crate) fn due(&self, now: Instant) -> Vec<NodeId> {
        self.open.iter().filter(|(_, question)| question.again <= now).map(|(id, _)| *id).collect()
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Question> {
        self.open.get_mut(&id)
    }
}
