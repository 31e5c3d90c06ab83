//! Whether the history of one key could have happened one operation at a time.
//!
//! The search of Wing and Gong: take any operation that nothing yet untaken had ended before, see whether its answer fits,
//! go on; go back when nothing fits. A memo of (operations taken, state) keeps it from going the same way twice. Keys are
//! checked one by one, which is sound because linearizability is local. What a key is worth is modelled here anew and
//! not borrowed from the code under test.

use std::collections::BTreeSet;

use specter_dht::Random;
use specter_dht::kv::{Answer, Operation};

pub use crate::history::Call;

/// How many states may be remembered for one key before the search is given up.
const MEMO_LIMIT: usize = 400_000;

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The search was given up.
    Undecided,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<Vec<u8>>,
    set: BTreeSet<Vec<u8>>,
}

/// What the state becomes and what the answer would be.
fn step(state: &State, operation: &Operation) -> Option<(State, Answer)> {
    let mut next = state.clone();
    let answer = match operation {
        Operation::Get => Answer::Value(state.value.clone()),
        Operation::Contains(child) => Answer::Found(state.set.contains(child)),
        Operation::List => Answer::Children(state.set.iter().cloned().collect()),
        Operation::Put { value, fence: None } => {
            next.value = Some(value.clone());
            Answer::Done
        }
        Operation::Delete => {
            next = State::default();
            Answer::Done
        }
        Operation::CompareAndSwap { expected, new } if state.value == *expected => {
            next.value.clone_from(new);
            Answer::Done
        }
        Operation::CompareAndSwap { .. } => Answer::Conflict,
        Operation::Append(child) => Answer::Found(!next.set.insert(child.clone())),
        Operation::Remove(child) => Answer::Found(next.set.remove(child)),
        // Leases depend on time and are checked as they are granted.
        Operation::Put { fence: Some(_), .. }
        | Operation::Acquire { .. }
        | Operation::Renew { .. }
        | Operation::Release { .. } => return None,
    };
    Some((next, answer))
}

/// One choice of the search: what may come next, and what was taken.
struct Frame {
    choices: Vec<usize>,
    next: usize,
    taken: Option<(usize, State)>,
}

struct Search {
    calls: Vec<Call>,
    /// Operations with an answer, then those without, each by the time they were called.
    answered: Vec<usize>,
    open: Vec<usize>,
    done: Vec<bool>,
    /// All answered operations before this place are taken.
    low: usize,
    left: usize,
    /// A number for each operation; those of the taken ones, combined, name the set of them.
    marks: Vec<(u64, u64)>,
    mark: (u64, u64),
    memo: BTreeSet<((u64, u64), State)>,
}

/// Whether the calls, all of one key, could have happened one at a time.
pub fn check(calls: &[Call]) -> Verdict {
    let mut calls = calls.to_vec();
    calls.retain(|call| call.returned.is_some() || !call.operation.is_read());
    calls.sort_by_key(|call| call.called);
    let mut random = Random::seeded(0xC4EC);
    let (answered, open): (Vec<usize>, Vec<usize>) =
        (0..calls.len()).partition(|index| calls[*index].returned.is_some());
    let search = Search {
        done: vec![false; calls.len()],
        marks: calls.iter().map(|_| (random.next_u64(), random.next_u64())).collect(),
        left: answered.len(),
        low: 0,
        mark: (0, 0),
        memo: BTreeSet::new(),
        answered,
        open,
        calls,
    };
    search.run()
}

impl Search {
    fn run(mut self) -> Verdict {
        let mut state = State::default();
        let mut stack = vec![Frame { choices: self.choices(), next: 0, taken: None }];
        while self.left > 0 {
            let Some(frame) = stack.last_mut() else { return Verdict::NotLinearizable };
            let Some(index) = frame.choices.get(frame.next).copied() else {
                // Nothing fits here: give back what was taken to get here.
                if let Some((index, before)) = stack.pop().and_then(|frame| frame.taken) {
                    self.toggle(index, false);
                    state = before;
                }
                continue;
            };
            frame.next += 1;
            let Some((next, answer)) = step(&state, &self.calls[index].operation) else { continue };
            let fits = match &self.calls[index].returned {
                Some((returned, _)) => *returned == answer,
                // Taking an operation that nobody saw is worth it only if it changes something.
                None => next != state,
            };
            if !fits {
                continue;
            }
            self.toggle(index, true);
            if self.memo.insert((self.mark, next.clone())) {
                let before = std::mem::replace(&mut state, next);
                stack.push(Frame { choices: self.choices(), next: 0, taken: Some((index, before)) });
            } else {
                self.toggle(index, false);
            }
            if self.memo.len() > MEMO_LIMIT {
                return Verdict::Undecided;
            }
        }
        Verdict::Linearizable
    }

    /// What may come next: everything that was called before the first end among the untaken. Those whose fate is open
    /// come last, the youngest first.
    fn choices(&self) -> Vec<usize> {
        let mut choices = Vec::new();
        let mut first_end = u64::MAX;
        for index in self.answered[self.low..].iter().copied().filter(|index| !self.done[*index]) {
            let call = &self.calls[index];
            if call.called > first_end {
                break;
            }
            first_end = call.returned.as_ref().map_or(first_end, |(_, at)| first_end.min(*at));
            choices.push(index);
        }
        choices.retain(|index| self.calls[*index].called <= first_end);
        let open = self.open.iter().rev().copied();
        choices.extend(open.filter(|index| !self.done[*index] && self.calls[*index].called <= first_end));
        choices
    }

    fn toggle(&mut self, index: usize, done: bool) {
        self.done[index] = done;
        self.mark.0 ^= self.marks[index].0;
        self.mark.1 ^= self.marks[index].1;
        if self.calls[index].returned.is_none() {
            return;
        }
        if done {
            self.left -= 1;
            while self.low < self.answered.len() && self.done[self.answered[self.low]] {
                self.low += 1;
            }
        } else {
            self.left += 1;
            let place = self.answered.partition_point(|other| *other < index);
            self.low = self.low.min(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, called: u64, returned: Option<(Answer, u64)>) -> Call {
        Call { operation, called, returned }
    }

    fn put(value: u8, called: u64, returned: Option<u64>) -> Call {
        let operation = Operation::Put { value: vec![value], fence: None };
        call(operation, called, returned.map(|at| (Answer::Done, at)))
    }

    fn get(value: Option<u8>, called: u64, returned: u64) -> Call {
        call(Operation::Get, called, Some((Answer::Value(value.map(|value| vec![value])), returned)))
    }

    #[test]
    fn operations_one_after_another_have_one_order() {
        assert_eq!(check(&[put(1, 0, Some(1)), get(Some(1), 2, 3)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, Some(1)), get(None, 2, 3)]), Verdict::NotLinearizable);
    }

    #[test]
    fn operations_at_the_same_time_have_any_order() {
        assert_eq!(check(&[put(1, 0, Some(9)), get(None, 1, 2), get(Some(1), 3, 4)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, Some(9)), get(Some(1), 1, 2), get(None, 3, 4)]), Verdict::NotLinearizable);
    }

    #[test]
    fn a_write_of_unknown_fate_may_happen_late_or_never_but_not_twice() {
        let history = [put(1, 0, None), put(2, 1, Some(2)), get(Some(2), 3, 4), get(Some(1), 5, 6)];
        assert_eq!(check(&history), Verdict::Linearizable);
        assert_eq!(check(&history[..3]), Verdict::Linearizable);
        let mut twice = history.to_vec();
        twice.extend([put(3, 7, Some(8)), get(Some(1), 9, 10)]);
        assert_eq!(check(&twice), Verdict::NotLinearizable);
    }

    #[test]
    fn a_write_is_not_seen_before_it_is_asked_for() {
        assert_eq!(check(&[get(Some(1), 0, 1), put(1, 2, None)]), Verdict::NotLinearizable);
    }

    #[test]
    fn a_failed_swap_tells_of_the_value() {
        let swap = |answer, called| {
            let operation = Operation::CompareAndSwap { expected: Some(vec![1]), new: Some(vec![2]) };
            call(operation, called, Some((answer, called + 1)))
        };
        assert_eq!(check(&[put(1, 0, Some(1)), swap(Answer::Done, 2), get(Some(2), 4, 5)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, Some(1)), swap(Answer::Conflict, 2)]), Verdict::NotLinearizable);
    }

    #[test]
    fn a_long_history_with_many_unknown_fates_is_decided() {
        let mut history = Vec::new();
        for round in 0..2000 {
            let at = round * 10;
            let value = u8::try_from(round % 250).expect("below 250");
            history.push(put(value, at, (round % 10 != 0).then_some(at + 5)));
            if round % 10 != 0 {
                history.push(get(Some(value), at + 6, at + 8));
            }
        }
        assert_eq!(check(&history), Verdict::Linearizable);
    }
}
