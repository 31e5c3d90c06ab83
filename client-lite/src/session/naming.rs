//! Names for the tunnels that have none: first those that the identity owns and nothing uses, then new ones.

use super::{Action, Message, Pending, Session, SessionError, Stage, State};
use specter_wire::{error::ErrorCode, limits::BATCH, name::Hostname};
use std::{collections::BTreeSet, sync::Arc};

impl Session {
    /// Looks for names for the tunnels that have none, or goes on to publishing.
    pub(super) fn name(&mut self) {
        if !self.leads || self.nameless().is_empty() {
            self.publish();
        } else {
            self.state = State::Listing { free: Vec::new() };
            self.ask(Message::Hostnames { after: String::new() }, Pending::Hostnames);
        }
    }

    /// Takes a page of owned names. Custom domains are never given away by themselves: only labels are free.
    pub(super) fn listed(&mut self, names: &[&str], more: bool) -> Result<(), SessionError> {
        if self.state == State::Leaving {
            return Ok(());
        }
        let State::Listing { mut free } = std::mem::replace(&mut self.state, State::Serving) else {
            return Err(SessionError::Violation("it lists hostnames unasked"));
        };
        let used: BTreeSet<Hostname> = (0..self.tunnels.len()).filter_map(|index| self.wire_name(index)).collect();
        for name in parse_all(names)? {
            if name.is_label() && !used.contains(&name) {
                free.push(name);
            }
        }
        let nameless = self.nameless();
        if let (true, Some(last)) = (more && free.len() < nameless.len(), names.last()) {
            self.ask(Message::Hostnames { after: (*last).to_owned() }, Pending::Hostnames);
            self.state = State::Listing { free };
            return Ok(());
        }
        let given: Vec<(usize, Hostname)> = nameless.iter().copied().zip(free).collect();
        let mut outstanding = 0;
        for batch in nameless[given.len()..].chunks(BATCH) {
            // At most BATCH, which fits.
            self.ask(Message::Claim { count: batch.len() as u8 }, Pending::Claim);
            outstanding += 1;
        }
        self.state = State::Claiming { outstanding, given };
        if outstanding == 0 {
            self.named();
        }
        Ok(())
    }

    pub(super) fn claimed(&mut self, answer: Result<&[&str], ErrorCode>) -> Result<(), SessionError> {
        if self.state == State::Leaving {
            return Ok(());
        }
        let State::Claiming { mut outstanding, mut given } = std::mem::replace(&mut self.state, State::Serving) else {
            return Err(SessionError::Violation("it gives hostnames unasked"));
        };
        outstanding -= 1;
        let taken: BTreeSet<usize> = given.iter().map(|(index, _)| *index).collect();
        let nameless = self.nameless().into_iter().filter(|index| !taken.contains(index));
        match answer {
            Ok(names) => given.extend(nameless.zip(parse_all(names)?)),
            // The last ones go without: which, does not matter.
            Err(code) => {
                for index in nameless.rev().take(BATCH).collect::<Vec<_>>() {
                    self.published(index, Some(code));
                }
            }
        }
        self.state = State::Claiming { outstanding, given };
        if outstanding == 0 {
            self.named();
        }
        Ok(())
    }

    /// Has the new names stored, and publishes when that is done.
    fn named(&mut self) {
        let State::Claiming { given, .. } = std::mem::replace(&mut self.state, State::SavingHostnames) else {
            return;
        };
        for (index, hostname) in &given {
            if let Some(tunnel) = Arc::make_mut(&mut self.tunnels).get_mut(*index) {
                tunnel.hostname = Some(hostname.clone());
            }
        }
        for index in self.nameless() {
            // The node gave fewer than asked and said nothing.
            self.published(index, Some(ErrorCode::Internal));
        }
        if given.is_empty() {
            self.publish();
        } else {
            self.actions.push_back(Action::SaveHostnames(given));
        }
    }

    fn nameless(&self) -> Vec<usize> {
        let nameless = |index: &usize| {
            let named = self.tunnels.get(*index).is_some_and(|tunnel| tunnel.hostname.is_some());
            !named && self.stages.get(*index) == Some(&Stage::Waiting)
        };
        (0..self.stages.len()).filter(nameless).collect()
    }
}

fn parse_all(names: &[&str]) -> Result<Vec<Hostname>, SessionError> {
    let parse = |name: &&str| Hostname::parse(name).map_err(|_| SessionError::Violation("it holds no hostname"));
    names.iter().map(parse).collect()
}
