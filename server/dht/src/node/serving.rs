//! How requests of other nodes are answered, and those of this one that it can answer itself.

use std::collections::BTreeMap;

use super::Node;
use crate::kv::{self, Answer, OpId, Refusal, Request, RequestId};
use crate::{Freshness, Instant, NodeId, Part, Reply, Version};

/// Requests that slots of this node are working on.
#[derive(Debug, Default)]
pub(super) struct Serving {
    counted: u64,
    /// Who asked, and what.
    open: BTreeMap<RequestId, (NodeId, OpId)>,
}

impl Node {
    /// Another node asks, or this one itself.
    pub(super) fn serve(&mut self, now: Instant, from: NodeId, freshness: Freshness, request: Request) {
        let op = request.op;
        let slot = self.terms.map(|terms| terms.slot_of(&request.key));
        let Some(slot) = slot else {
            return self.tell(
                now,
                from,
                op,
                Err(Refusal::Redirect { leader: None, members: Vec::new(), version: Version::default() }),
            );
        };
        if self.serving.open.len() >= self.settings.requests {
            self.refused.requests += 1;
            return self.tell(now, from, op, Err(Refusal::Busy));
        }
        let keeps = self.slots.get(&slot).is_some_and(|slot| slot.is_member());
        if !keeps {
            let (version, members) = self.known_members(slot);
            return self.tell(now, from, op, Err(Refusal::Redirect { leader: None, members, version }));
        }
        match freshness {
            Freshness::Hint => {
                let known = self.slots.get(&slot).and_then(|slot| slot.peek(&request.key, &request.operation));
                let reply = known.map(|(answer, version)| Reply { answer, version });
                self.tell(now, from, op, reply.ok_or(Refusal::Unavailable));
            }
            Freshness::Linearizable => {
                self.serving.counted += 1;
                let id = RequestId(self.serving.counted);
                self.serving.open.insert(id, (from, op));
                self.slot_input(now, slot, kv::Input::Request { id, request });
            }
        }
    }

    /// A slot of this node has an answer.
    pub(super) fn served(
        &mut self,
        now: Instant,
        id: RequestId,
        reply: Result<Answer, Refusal>,
        rests_on: Option<Version>,
    ) {
        let Some((from, op)) = self.serving.open.remove(&id) else { return };
        self.tell(now, from, op, reply.map(|answer| Reply { answer, version: rests_on }));
    }

    fn tell(&mut self, now: Instant, to: NodeId, op: OpId, reply: Result<Reply, Refusal>) {
        if to == self.me {
            self.asking.heard(to, op, reply);
        } else {
            self.post(now, to, Part::Told { op, reply });
        }
    }
}
