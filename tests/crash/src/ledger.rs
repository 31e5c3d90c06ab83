//! What was asked of the store and what it acknowledged: kept outside of the process that may die.
//!
//! At most one call is under way for a key, so after a crash there are two things that a key may be: what the last
//! acknowledged call made of it, or what the call made of it that nobody answered. Which of them was seen then holds: a
//! write that was seen must not go, and one that was not must not come later.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Random,
    child::{Child, PATIENCE},
};

/// Keys with a value.
const VALUES: u64 = 160;

/// Keys with a set.
const SETS: u64 = 16;

/// Keys with a lease.
const LEASES: u64 = 16;

/// Longest value.
const VALUE_BYTES: u64 = 48 << 10;

/// Children of a set come from so many.
const CHILDREN: u64 = 64;

/// All keys, and the calls that nobody has answered yet.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<Key, State>,
    open: BTreeMap<u64, (Key, State)>,
    calls: u64,
    /// Calls of which the store said that it does not know.
    unheard: BTreeSet<u64>,
    /// Values are as long as they get, and stay.
    pub large: bool,
    /// Calls that were refused because of the disk, and changed nothing.
    pub refused: u64,
    /// Calls that were acknowledged.
    pub acknowledged: u64,
    /// Calls that were under way at a crash and had taken effect.
    pub done_unheard: u64,
    /// Calls that were under way at a crash and had not.
    pub undone: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    Value(u64),
    Set(u64),
    Lease(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// The number of the call that wrote it, and its length.
    Value(Option<(u64, u64)>),
    Set(BTreeSet<u64>),
    /// The token, once one is known.
    Lease(Option<String>),
}

impl Ledger {
    /// How many keys there are.
    pub const KEYS: u64 = VALUES + SETS + LEASES;

    /// A call that changes something, on a key for which none is under way.
    pub fn next(&mut self, random: &mut Random) -> Option<(u64, String)> {
        let key = self.free(random)?;
        let id = self.calls + 1;
        let before = self.state(key);
        let (call, after) = match (key, before) {
            (Key::Value(number), _) if !self.large && random.below(10) == 0 => {
                (format!("delete v{number}"), State::Value(None))
            }
            (Key::Value(number), _) => {
                // Small ones for many records, large ones for a long log.
                let longest = if random.below(4) == 0 { VALUE_BYTES } else { 512 };
                let size = if self.large { VALUE_BYTES } else { 1 + random.below(longest) };
                (format!("put v{number} {}", value(id, size)), State::Value(Some((id, size))))
            }
            (Key::Set(number), State::Set(mut children)) => {
                let child = random.below(CHILDREN);
                if children.remove(&child) {
                    (format!("remove s{number} c{child}"), State::Set(children))
                } else {
                    children.insert(child);
                    (format!("add s{number} c{child}"), State::Set(children))
                }
            }
            (Key::Lease(number), before) => (format!("lease l{number} owner"), before),
            (Key::Set(_), State::Value(_) | State::Lease(_)) => return None,
        };
        self.calls = id;
        self.open.insert(id, (key, after));
        Some((id, call))
    }

    /// Calls that nobody has answered.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Of them, those that nobody will answer any more.
    pub fn unheard(&self) -> usize {
        self.unheard.len()
    }

    /// Makes one call and tells whether it was acknowledged.
    ///
    /// # Errors
    /// There was no answer in time, or one that breaks what was promised.
    pub fn next_is_done(&mut self, child: &mut Child, random: &mut Random) -> Result<bool, Box<dyn std::error::Error>> {
        let before = self.acknowledged;
        let (id, call) = self.next(random).ok_or("a call is under way for every key")?;
        child.call(id, &call)?;
        child.flush()?;
        let (id, answer) = child.answer(PATIENCE).ok_or("a write was not answered in time")?;
        self.answered(id, &answer)?;
        Ok(self.acknowledged > before)
    }

    /// Takes in an answer of the process that runs.
    ///
    /// # Errors
    /// The answer breaks what was promised.
    pub fn answered(&mut self, id: u64, answer: &str) -> Result<(), String> {
        let Some((key, after)) = self.open.remove(&id) else { return Err(format!("call {id} is answered twice")) };
        let after = match (answer.split_once(' '), after) {
            (None, after) if answer == "done" => after,
            (Some(("done", token)), State::Lease(known)) => {
                if known.as_deref().is_some_and(|known| known != token) {
                    return Err(format!("{key:?} had {known:?} and is granted to the same owner as {token}"));
                }
                State::Lease(Some(token.to_owned()))
            }
            // Nothing was changed, it says.
            (Some(("refused", "ReadOnly")), _) => {
                self.refused += 1;
                return Ok(());
            }
            // Not in time, on a slow machine.
            (Some(("refused", "Unavailable")), _) => return Ok(()),
            (Some(("refused", "Unknown")), after) => {
                // Open until the next start tells.
                self.open.insert(id, (key, after));
                self.unheard.insert(id);
                return Ok(());
            }
            (_, after) => return Err(format!("{key:?} was to become {after:?}, and the answer is {answer}")),
        };
        self.keys.insert(key, after);
        self.acknowledged += 1;
        Ok(())
    }

    /// The calls that tell what every key holds, numbered for [`Self::seen`].
    pub fn questions(&self) -> Vec<(u64, String)> {
        let question = |number| match at(number) {
            Key::Value(number) => format!("read v{number}"),
            Key::Set(number) => format!("list s{number}"),
            // A rival takes a lease only if nobody was told that it is held.
            key @ Key::Lease(number) => match self.state(key) {
                State::Lease(Some(_)) => format!("lease l{number} rival"),
                State::Lease(None) | State::Value(_) | State::Set(_) => format!("lease l{number} owner"),
            },
        };
        (0..Self::KEYS).map(|number| (number, question(number))).collect()
    }

    /// Takes in what a key holds after a start.
    ///
    /// # Errors
    /// Something that was acknowledged is missing, or something is there that nobody wrote or that is not whole.
    pub fn seen(&mut self, number: u64, answer: &str) -> Result<(), String> {
        let key = at(number);
        let before = self.state(key);
        let open = self.open.iter().find(|(_, (open, _))| *open == key).map(|(id, (_, after))| (*id, after.clone()));
        if let Some((id, _)) = &open {
            self.open.remove(id);
            self.unheard.remove(id);
        }
        if let State::Lease(token) = &before {
            return match (token, answer.strip_prefix("done ")) {
                (Some(_), None) if answer == "held" => Ok(()),
                // Asking for a lease is a write.
                (_, None) if answer == "refused ReadOnly" => Ok(()),
                (None, Some(token)) => {
                    self.keys.insert(key, State::Lease(Some(token.to_owned())));
                    Ok(())
                }
                _ => Err(format!("{key:?} is held with {token:?}, and the answer to another is {answer}")),
            };
        }
        if is(&before, answer) {
            self.undone += u64::from(open.is_some_and(|(_, after)| after != before));
            return Ok(());
        }
        match open {
            Some((_, after)) if is(&after, answer) => {
                self.done_unheard += 1;
                self.keys.insert(key, after);
                Ok(())
            }
            open => Err(format!(
                "{key:?} must be {before:?}, or by the open call {open:?}; it is {answer:.80} ({} bytes)",
                answer.len()
            )),
        }
    }

    fn free(&self, random: &mut Random) -> Option<Key> {
        let is_free = |key: &Key| self.open.values().all(|(open, _)| open != key);
        let start = random.below(Self::KEYS);
        (0..Self::KEYS).map(|step| at((start + step) % Self::KEYS)).find(is_free)
    }

    fn state(&self, key: Key) -> State {
        self.keys.get(&key).cloned().unwrap_or_else(|| match key {
            Key::Value(_) => State::Value(None),
            Key::Set(_) => State::Set(BTreeSet::new()),
            Key::Lease(_) => State::Lease(None),
        })
    }
}

fn at(number: u64) -> Key {
    match number {
        0..VALUES => Key::Value(number),
        number if number < VALUES + SETS => Key::Set(number - VALUES),
        number => Key::Lease(number - VALUES - SETS),
    }
}

fn is(state: &State, answer: &str) -> bool {
    match state {
        State::Value(None) => answer == "absent",
        State::Value(Some((id, size))) => answer.strip_prefix("value ") == Some(value(*id, *size).as_str()),
        State::Set(children) => {
            let found = answer.strip_prefix("set ").map(|found| found.split_whitespace().collect::<BTreeSet<_>>());
            let wanted: Vec<_> = children.iter().map(|child| format!("c{child}")).collect();
            found.is_some_and(|found| found == wanted.iter().map(String::as_str).collect())
        }
        State::Lease(_) => false,
    }
}

/// A value that only one call writes, and of which every part says so.
fn value(id: u64, size: u64) -> String {
    let mut text = String::new();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    while text.len() < size {
        text.push_str(&format!("{id}:{};", text.len()));
    }
    text.truncate(size);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger in which key `v0` was written and acknowledged, with the answer that a read must give.
    fn written() -> (Ledger, String) {
        let mut ledger = Ledger::default();
        let (id, size) = (7, 100);
        ledger.open.insert(id, (Key::Value(0), State::Value(Some((id, size)))));
        ledger.answered(id, "done").unwrap();
        (ledger, format!("value {}", value(id, size)))
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_whole() {
        let (mut ledger, answer) = written();
        ledger.seen(0, &answer).unwrap();
        ledger.seen(0, "absent").unwrap_err();
        ledger.seen(0, &answer[..answer.len() - 1]).unwrap_err();
        ledger.seen(0, &format!("value {}", value(8, 100))).unwrap_err();
    }

    #[test]
    fn what_nobody_answered_is_there_or_not_and_then_stays_so() {
        let (mut ledger, answer) = written();
        let gone = State::Value(None);
        ledger.open.insert(8, (Key::Value(0), gone.clone()));
        ledger.seen(0, "absent").unwrap();
        ledger.seen(0, &answer).unwrap_err();
        assert_eq!((ledger.done_unheard, ledger.undone), (1, 0));
        let (mut ledger, answer) = written();
        ledger.open.insert(8, (Key::Value(0), gone));
        ledger.seen(0, &answer).unwrap();
        ledger.seen(0, "absent").unwrap_err();
        assert_eq!((ledger.done_unheard, ledger.undone), (0, 1));
    }

    #[test]
    fn a_set_is_what_its_children_are() {
        let mut ledger = Ledger::default();
        ledger.keys.insert(Key::Set(0), State::Set([3, 12].into()));
        ledger.seen(VALUES, "set c12 c3").unwrap();
        ledger.seen(VALUES, "set c12").unwrap_err();
        ledger.seen(VALUES, "set ").unwrap_err();
    }

    #[test]
    fn a_lease_that_was_granted_is_nobody_elses() {
        let mut ledger = Ledger::default();
        let lease = Key::Lease(0);
        ledger.open.insert(1, (lease, State::Lease(None)));
        ledger.answered(1, "done Token(5)").unwrap();
        ledger.seen(VALUES + SETS, "held").unwrap();
        ledger.seen(VALUES + SETS, "done Token(6)").unwrap_err();
        ledger.open.insert(2, (lease, State::Lease(Some("Token(5)".to_owned()))));
        ledger.answered(2, "done Token(6)").unwrap_err();
    }

    #[test]
    fn a_call_is_under_way_for_each_key_once() {
        let (mut ledger, mut random) = (Ledger::default(), Random::seeded(1));
        let calls = std::iter::from_fn(|| ledger.next(&mut random)).count();
        assert_eq!(u64::try_from(calls).unwrap(), Ledger::KEYS);
    }
}
