//! What clients asked and what came of it, key by key.

use std::collections::BTreeMap;

use specter_dht::kv::{Answer, Key, Operation};

use crate::checker::{self, Verdict};
use crate::{Outcome, Violation};

/// One operation of a key's history.
#[derive(Clone, Debug)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// When it was asked first, in microseconds.
    pub called: u64,
    /// The answer and when it arrived; none when the operation may have been done at any time since, or not at all.
    pub returned: Option<(Answer, u64)>,
}

/// The histories of all keys.
#[derive(Debug, Default)]
pub(crate) struct History {
    keys: BTreeMap<Key, Vec<Call>>,
}

impl History {
    pub(crate) fn add(&mut self, key: &Key, call: Call) {
        self.keys.entry(key.clone()).or_default().push(call);
    }

    pub(crate) const fn keys(&self) -> &BTreeMap<Key, Vec<Call>> {
        &self.keys
    }

    /// Whether each key's operations could have happened one at a time.
    pub(crate) fn check(&self, outcome: &mut Outcome) -> Result<(), Violation> {
        for (key, calls) in &self.keys {
            match checker::check(calls) {
                Verdict::Linearizable => {}
                Verdict::Undecided => outcome.count("histories undecided"),
                Verdict::NotLinearizable => {
                    return Err(Violation::NotLinearizable(String::from_utf8_lossy(key).escape_debug().to_string()));
                }
            }
        }
        Ok(())
    }
}
