//! A client of one slot: whom it asks, and when it gives up.

use std::collections::BTreeSet;

use specter_dht::kv::{OpId, Refusal, Request};
use specter_dht::{NodeId, Random};

use crate::slot::Swarm;
use crate::slot::swarm::CLIENT_BUDGET_MICROS;
use crate::workload::Workload;

/// One operation on its way.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) called: u64,
    /// Copies that reached a node or may yet.
    pub(crate) copies: u64,
    /// Those of which a node said that it did nothing; it may say so twice.
    pub(crate) refused: BTreeSet<u64>,
    /// How often it was sent.
    pub(crate) attempts: u64,
}

/// A client with at most one operation in flight.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) workload: Workload,
    pub(crate) pending: Option<Pending>,
    /// Whom to ask next.
    target: NodeId,
    /// Answers since the faults stopped.
    pub(crate) calm_answers: u64,
}

impl Client {
    pub(crate) const fn new(id: u64, workload: Workload) -> Self {
        Self { id, workload, pending: None, target: NodeId(0), calm_answers: 0 }
    }

    /// Draws the next operation.
    pub(crate) fn begin(&mut self, time: u64) {
        let (key, operation) = self.workload.draw(time);
        let request = Request { key, op: OpId { client: self.id, number: self.workload.number() }, operation };
        self.pending = Some(Pending { request, called: time, copies: 0, refused: BTreeSet::new(), attempts: 0 });
    }

    /// Whom to send the next attempt to and how long to wait for its answer; none when the client gives up.
    pub(crate) fn attempt(&mut self, swarm: &Swarm, time: u64) -> Option<(NodeId, Request, u64)> {
        let budget = CLIENT_BUDGET_MICROS - 400_000;
        let pending = self.pending.as_mut()?;
        if time.saturating_sub(pending.called) > budget {
            return None;
        }
        pending.attempts += 1;
        let random = &mut self.workload.random;
        let wait = random.between(100_000, 400_000);
        let target = self.target;
        // Most clients stay with the node that answered last, even if that is the wrong one by now.
        if pending.attempts > 1 && random.chance(500) {
            self.target = any_node(swarm, random);
        }
        Some((target, pending.request.clone(), wait))
    }

    /// Whether the answer is to the operation in flight.
    pub(crate) fn awaits(&self, op: OpId) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.request.op == op)
    }

    /// Takes in that a copy was refused, and whom to ask next.
    pub(crate) fn refused(&mut self, from: NodeId, copy: u64, refusal: &Refusal, swarm: &Swarm) {
        let Some(pending) = &mut self.pending else { return };
        match refusal {
            Refusal::Redirect { leader, members } => {
                pending.refused.insert(copy);
                let random = &mut self.workload.random;
                let any = usize::try_from(random.below(members.len() as u64)).unwrap_or_default();
                self.target = leader.or_else(|| members.get(any).copied()).unwrap_or(NodeId(0));
                if self.target == from || random.chance(100) {
                    self.target = any_node(swarm, random);
                }
            }
            Refusal::Busy | Refusal::Unavailable | Refusal::ReadOnly | Refusal::TooLarge => {
                pending.refused.insert(copy);
            }
            Refusal::Unknown { .. } | Refusal::Superseded => {}
        }
    }
}

fn any_node(swarm: &Swarm, random: &mut Random) -> NodeId {
    NodeId::from(random.below(swarm.nodes))
}
