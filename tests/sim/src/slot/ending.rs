//! What is judged when a world has come to its end.

use std::collections::BTreeSet;

use specter_dht::NodeId;
use specter_dht::kv::Config;

use super::client::Pending;
use super::world::World;
use crate::Violation;
use crate::checker::Call;

impl World {
    pub(super) fn conclude(&mut self) -> Result<(), Violation> {
        self.count_configurations();
        for client in &mut self.clients {
            let Some(Pending { request, called, .. }) = client.pending.take() else { continue };
            if request.key.starts_with(b"r") {
                self.history.add(&request.key, Call { operation: request.operation, called, returned: None });
            }
        }
        self.history.check(&mut self.outcome)?;
        let wanted: BTreeSet<NodeId> = self.wanted.iter().copied().collect();
        let leads = self.leader().and_then(|node| self.machines.get(&node)?.slot.as_ref()?.leads());
        match leads {
            None => return Err(Violation::Stuck("nobody leads".into())),
            Some(config) if !config.is_stable() || config.nodes() != wanted => {
                return Err(Violation::Stuck(format!(
                    "the members are {:?} and {:?}, not {wanted:?}",
                    config.old, config.new
                )));
            }
            Some(_) => {}
        }
        match self.clients.iter().find(|client| client.calm_answers == 0) {
            Some(client) => Err(Violation::Stuck(format!("client {} has no answer", client.id))),
            None => Ok(()),
        }
    }

    fn count_configurations(&mut self) {
        let configs: Vec<&Config> = self.invariants.chosen().values().collect();
        for pair in configs.windows(2) {
            let same = pair[1].old == pair[0].old;
            let what = match (pair[0].is_stable(), pair[1].is_stable()) {
                (true, false) => "joint configurations",
                (false, true) if same => "reconfigurations undone",
                (false, true) => "reconfigurations",
                // One leader has the same members accepted twice only to undo a joint configuration that was not chosen.
                (true, true) if same && pair[0].version.ballot == pair[1].version.ballot => {
                    "reconfigurations undone early"
                }
                (true, true) | (false, false) => "configurations accepted again",
            };
            self.outcome.count(what);
        }
    }
}
