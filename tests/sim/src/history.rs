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
                    outcome.notes.extend(explain(calls));
                    return Err(Violation::NotLinearizable(String::from_utf8_lossy(key).escape_debug().to_string()));
                }
            }
        }
        Ok(())
    }
}

/// How many calls of a history that is not linearizable are shown.
const SHOWN: usize = 24;

/// The calls up to the first answer that does not fit.
fn explain(calls: &[Call]) -> Vec<String> {
    let until = |end: u64| -> Vec<Call> {
        let begun = calls.iter().filter(|call| call.called <= end).cloned();
        begun.map(|call| Call { returned: call.returned.filter(|(_, at)| *at <= end), ..call }).collect()
    };
    let mut ends: Vec<u64> = calls.iter().filter_map(|call| Some(call.returned.as_ref()?.1)).collect();
    ends.sort_unstable();
    let fits = |end: &u64| checker::check(&until(*end)) != Verdict::NotLinearizable;
    let first = ends.partition_point(fits);
    let mut shown = until(ends.get(first).copied().unwrap_or(u64::MAX));
    shown.sort_by_key(|call| (call.returned.as_ref().map_or(call.called, |(_, at)| *at), call.called));
    let skipped = shown.len().saturating_sub(SHOWN);
    let seconds = |micros: u64| micros as f64 / 1e6;
    let line = |call: &Call| match &call.returned {
        Some((answer, at)) => {
            format!("{:>11.6} to {:>11.6}: {:?}: {answer:?}", seconds(call.called), seconds(*at), call.operation)
        }
        None => format!("{:>11.6} to           ?: {:?}", seconds(call.called), call.operation),
    };
    shown[skipped..].iter().map(line).collect()
}
