//! What clients asked and were told, and whether one register could have told it.

use crate::kv::{Answer, Operation, Refusal, Register};

/// What a client knows of its operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    /// It has not asked.
    Idle,
    /// It has no answer, or none that says what came of it.
    Open,
    /// It was told that nothing was done.
    Refused,
    /// It has this answer.
    Done(Answer),
}

/// Every operation of the scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct History {
    operations: Vec<(Fate, Vec<usize>)>,
}

impl History {
    pub(super) fn new(count: usize) -> Self {
        Self { operations: vec![(Fate::Idle, Vec::new()); count] }
    }

    pub(super) fn fates(&self) -> impl Iterator<Item = &Fate> {
        self.operations.iter().map(|(fate, _)| fate)
    }

    pub(super) fn is_idle(&self, number: usize) -> bool {
        self.operations[number].0 == Fate::Idle
    }

    pub(super) fn all_done(&self) -> bool {
        self.fates().all(|fate| matches!(fate, Fate::Done(_)))
    }

    /// A client asks: whatever has been answered by now came before.
    pub(super) fn asked(&mut self, number: usize) {
        let done = |(fate, _): &(Fate, _)| matches!(fate, Fate::Done(_));
        let before = (0..self.operations.len()).filter(|other| done(&self.operations[*other])).collect();
        self.operations[number] = (Fate::Open, before);
    }

    /// A client is told something.
    pub(super) fn told(&mut self, number: usize, reply: Result<Answer, Refusal>) {
        self.operations[number].0 = match reply {
            Ok(answer) => Fate::Done(answer),
            Err(Refusal::Unknown { .. } | Refusal::Superseded) => Fate::Open,
            Err(
                Refusal::Redirect { .. } | Refusal::Busy | Refusal::Unavailable | Refusal::ReadOnly | Refusal::TooLarge,
            ) => Fate::Refused,
        };
    }

    /// Whether some order of the operations, each at one moment between question and answer, explains every answer.
    pub(super) fn is_linearizable(&self, script: &[Operation]) -> bool {
        self.explains(script, &Register::EMPTY, &mut Vec::new())
    }

    fn explains(&self, script: &[Operation], register: &Register, order: &mut Vec<usize>) -> bool {
        let done = |number: &usize| matches!(self.operations[*number].0, Fate::Done(_));
        if (0..script.len()).filter(done).all(|number| order.contains(&number)) {
            return true;
        }
        for number in 0..script.len() {
            let (fate, before) = &self.operations[number];
            if order.contains(&number) || !before.iter().all(|other| order.contains(other)) {
                continue;
            }
            let mut next = register.clone();
            let answer = next.apply(&script[number], 0);
            let fits = match fate {
                Fate::Idle | Fate::Refused => false,
                Fate::Open => true,
                Fate::Done(told) => *told == answer,
            };
            if fits {
                order.push(number);
                if self.explains(script, &next, order) {
                    return true;
                }
                order.pop();
            }
        }
        false
    }
}
