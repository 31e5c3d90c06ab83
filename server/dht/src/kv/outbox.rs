//! Holds every output back until what it rests on is on the disk (rule A1).

use std::collections::VecDeque;

use crate::NodeId;
use crate::kv::limits::BACKLOG_MAX;
use crate::kv::{Entry, Message, Output, Rule, Rules};

/// About what an entry or a message takes besides keys and values.
const OVERHEAD: usize = 256;

impl Entry {
    fn size(&self) -> usize {
        let more = match self {
            Self::Accept { key, register, .. } => key.len() + register.size(),
            Self::Purge { key, .. } | Self::Lost { key, .. } => key.len(),
            Self::Promise(_) | Self::Config { .. } => 0,
        };
        OVERHEAD + more
    }
}

impl Message {
    /// What it takes while it waits for the disk; those that never wait count as small.
    fn size(&self) -> usize {
        let more = match self {
            Self::Held { registers, .. } => registers.iter().map(|(key, _, held)| key.len() + held.size()).sum(),
            Self::Listed { versions, .. } => versions.iter().map(|(key, _)| key.len() + 32).sum(),
            Self::Accepted { key, .. } => key.len(),
            Self::Prepare { .. }
            | Self::Promise { .. }
            | Self::Fetch { .. }
            | Self::List { .. }
            | Self::Nack { .. }
            | Self::Accept { .. }
            | Self::Behind { .. }
            | Self::Full { .. }
            | Self::AcceptConfig { .. }
            | Self::ConfigAccepted { .. }
            | Self::Confirm { .. }
            | Self::Confirmed { .. }
            | Self::Purge { .. }
            | Self::Succeed { .. }
            | Self::Learn { .. } => 0,
        };
        OVERHEAD + more
    }
}

/// Outputs on their way out, and the messages a node sends to itself.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Outbox {
    me: NodeId,
    rules: Rules,
    appended: u64,
    persisted: u64,
    /// Messages that wait for the log, in order of the positions they wait for.
    held: VecDeque<(u64, NodeId, Message)>,
    /// The entries that are not on the disk, by position and size.
    unsynced: VecDeque<(u64, usize)>,
    /// The size of those and of the messages that wait.
    backlog: usize,
    ready: VecDeque<Output>,
    to_self: VecDeque<Message>,
}

impl Outbox {
    /// An outbox of a node whose log has so many entries, all of them on the disk.
    pub(crate) const fn new(me: NodeId, rules: Rules, entries: u64) -> Self {
        Self {
            me,
            rules,
            appended: entries,
            persisted: entries,
            held: VecDeque::new(),
            unsynced: VecDeque::new(),
            backlog: 0,
            ready: VecDeque::new(),
            to_self: VecDeque::new(),
        }
    }

    /// The position of the newest entry.
    pub(crate) const fn position(&self) -> u64 {
        self.appended
    }

    /// Whether so much waits for the disk that nothing large may be added.
    pub(crate) const fn is_full(&self) -> bool {
        self.backlog >= BACKLOG_MAX
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.appended += 1;
        let size = entry.size();
        self.unsynced.push_back((self.appended, size));
        self.backlog += size;
        self.ready.push_back(Output::Append { position: self.appended, entry });
    }

    /// Sends a message that rests on the log up to `position`.
    pub(crate) fn send_after(&mut self, position: u64, to: NodeId, message: Message) {
        if position <= self.persisted || !self.rules.keeps(Rule::PersistBeforeReply) {
            self.send(to, message);
        } else {
            self.backlog += message.size();
            let index = self.held.partition_point(|(other, ..)| *other <= position);
            self.held.insert(index, (position, to, message));
        }
    }

    /// Sends a message that rests on nothing.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me {
            self.to_self.push_back(message);
        } else {
            self.ready.push_back(Output::Transmit { to, message });
        }
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    pub(crate) fn persisted(&mut self, upto: u64) {
        self.persisted = self.persisted.max(upto.min(self.appended));
        while let Some((_, size)) = self.unsynced.pop_front_if(|(position, _)| *position <= self.persisted) {
            self.backlog -= size;
        }
        while let Some((_, to, message)) = self.held.pop_front_if(|(position, ..)| *position <= self.persisted) {
            self.backlog -= message.size();
            self.send(to, message);
        }
    }

    pub(crate) fn next_to_self(&mut self) -> Option<Message> {
        self.to_self.pop_front()
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}
