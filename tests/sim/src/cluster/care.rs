//! What becomes of a node's disk while the node runs: it fills up, fails, has room again, and its log is written down.

use specter_dht::Input;
use specter_storage::log::Health;

use super::machine::Name;
use super::store::News;
use super::world::{Event, World};
use crate::Violation;

impl World {
    /// A node's log may be in another state than before: the node is told, and somebody may have to do something about it.
    pub(super) fn look_after(&mut self, name: Name) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&name).filter(|machine| machine.is_up()) else { return Ok(()) };
        let (boot, stalled_until) = (machine.boot, machine.stalled_until);
        let Some((store, node)) = machine.store.as_mut().zip(machine.node.as_ref()) else { return Ok(()) };
        if store.go_on(node) {
            let after = store.random().between(100, 50_000);
            self.queue.push_at(stalled_until.max(self.queue.time() + after), Event::Saved { machine: name, boot });
        }
        let Some(news) = store.news() else { return Ok(()) };
        let soon = store.random().between(1_000, 2_000_000);
        match news {
            News::Stopped => {
                self.outcome.count("machines that stopped at a call of their disk");
                self.crash(name, None);
                return Ok(());
            }
            News::Health(Health::Open) => {}
            News::Health(Health::Full) => {
                self.outcome.count("logs that found their disks full");
                self.queue.push(soon, Event::Reclaim { machine: name, boot });
            }
            News::Health(Health::Failed) => {
                self.outcome.count("logs that failed");
                self.queue.push(soon, Event::Stop { machine: name, boot });
            }
        }
        self.tell(|| format!("{name}: {news:?}"));
        self.input(name, Input::ReadOnly(news != News::Health(Health::Open)))
    }

    /// A checkpoint is written down.
    pub(super) fn saved(&mut self, name: Name, boot: u32) -> Result<(), Violation> {
        if !self.is_same(name, boot) {
            return Ok(());
        }
        let Some(store) = self.machines.get_mut(&name).and_then(|machine| machine.store.as_mut()) else {
            return Ok(());
        };
        let saved =
            store.save().map_err(|error| Violation::Log(format!("{name} has a row that is too long: {error}")))?;
        self.outcome.count(if saved { "checkpoints" } else { "checkpoints that failed" });
        self.look_after(name)
    }

    /// A full disk may have room again.
    pub(super) fn reclaim(&mut self, name: Name, boot: u32) -> Result<(), Violation> {
        if !self.is_same(name, boot) {
            return Ok(());
        }
        let Some(store) = self.machines.get_mut(&name).and_then(|machine| machine.store.as_mut()) else {
            return Ok(());
        };
        store.reclaim();
        if store.health() == Health::Full {
            let after = store.random().between(1_000, 2_000_000);
            self.queue.push(after, Event::Reclaim { machine: name, boot });
        }
        self.look_after(name)
    }
}
