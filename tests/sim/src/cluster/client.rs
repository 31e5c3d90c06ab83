//! A client of the cluster: it lives beside a node, asks it, and goes to another one when it has no answer.

use specter_dht::kv::{Key, Operation};
use specter_dht::{Freshness, Random};

use crate::cluster::machine::Name;
use crate::workload::Workload;

/// What kind of client it is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Asks this and that.
    Busy,
    /// Asks for one key over and over.
    Probe(Key),
    /// Asks what a scenario says, and nothing by itself.
    Told,
}

/// One operation that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) key: Key,
    pub(crate) operation: Operation,
    pub(crate) freshness: Freshness,
    pub(crate) called: u64,
    pub(crate) patience_micros: u64,
    pub(crate) machine: Name,
    pub(crate) boot: u32,
}

/// A client with at most one operation in flight.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) workload: Workload,
    pub(crate) pending: Option<Pending>,
    /// The number of the operation that was replied to last.
    pub(crate) replied: u64,
    /// Beside which machine it lives.
    pub(crate) machine: Name,
    /// Answers since the cluster was one again.
    pub(crate) calm_answers: u64,
}

impl Client {
    pub(crate) fn new(id: u64, kind: Kind, keys: u64, random: Random) -> Self {
        let workload = Workload::new(id, keys, random);
        Self { id, kind, workload, pending: None, replied: 0, machine: Name(1), calm_answers: 0 }
    }

    /// Draws the next operation.
    pub(crate) fn draw(&mut self, time: u64) -> (Key, Operation, Freshness) {
        let (key, operation) = match &self.kind {
            Kind::Probe(key) => {
                let (key, number) = (key.clone(), self.workload.count());
                let put = Operation::Put { value: self.workload.value(), fence: None };
                (key, if number.is_multiple_of(2) { put } else { Operation::Get })
            }
            Kind::Busy | Kind::Told => self.workload.draw(time),
        };
        let hints = matches!(operation, Operation::Get) && self.workload.random.chance(150);
        (key, operation, if hints { Freshness::Hint } else { Freshness::Linearizable })
    }
}
