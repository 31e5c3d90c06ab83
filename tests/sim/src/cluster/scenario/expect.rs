//! Whether what should be so is so, or becomes so in time.

use std::collections::BTreeSet;

use super::play::{Play, key};
use super::{Stop, Truth, micros};
use crate::cluster::machine::{Duty, Name};

/// How often one looks.
const LOOK_MICROS: u64 = 50_000;

impl Play {
    pub(super) fn expect(&mut self, truth: &Truth, within_micros: u64) -> Result<(), Stop> {
        let end = self.world.time() + within_micros;
        loop {
            let Some(text) = self.untrue(truth)? else { return Ok(()) };
            if self.world.time() >= end {
                return Err(Stop::Untrue(text));
            }
            self.world.run_until((self.world.time() + LOOK_MICROS).min(end))?;
        }
    }

    /// Nothing when it is so, or how it is.
    fn untrue(&mut self, truth: &Truth) -> Result<Option<String>, Stop> {
        Ok(match truth {
            Truth::Converged => self.world.unsettled(),
            Truth::Members(name, who) => {
                let wanted: BTreeSet<Name> = self.machines(who)?.into_iter().collect();
                let members: BTreeSet<Name> = self.keepers(name);
                (members != wanted).then(|| format!("the slot of {name} is kept by {members:?}"))
            }
            Truth::Placed(name) => {
                let slot = self.world.swarm.terms.slot_of(&key(name));
                let wanted = self.world.placement(slot);
                let wanted = wanted.iter().filter_map(|node| self.world.names.get(node).copied());
                let (wanted, members): (BTreeSet<Name>, _) = (wanted.collect(), self.keepers(name));
                (members != wanted).then(|| format!("the slot of {name} is kept by {members:?}, not {wanted:?}"))
            }
            Truth::Led(name) => {
                let led = self.world.leader(self.world.swarm.terms.slot_of(&key(name)));
                led.is_none().then(|| format!("nobody leads the slot of {name}"))
            }
            Truth::Away(who) => self.other_than(Duty::Away, who)?,
            Truth::Up(who) => self.other_than(Duty::Up, who)?,
            Truth::Keys(most, who) => {
                let names = self.machines(who)?;
                let machines = names.iter().filter_map(|name| self.world.machines.get(name));
                let mut kept = machines.map(|machine| {
                    let slots = machine.image.slots.values();
                    (machine.name, slots.map(|slot| slot.registers.len()).sum::<usize>())
                });
                let more = kept.find(|(_, count)| count >= most);
                more.map(|(name, count)| format!("{name} keeps {count} keys"))
            }
            Truth::Wait(most) => {
                let longest = self.world.waits.take(self.world.time());
                (longest > micros(*most)).then(|| format!("a key could not be had for {} ms", longest / 1000))
            }
        })
    }

    fn keepers(&self, name: &str) -> BTreeSet<Name> {
        self.world.members(self.world.swarm.terms.slot_of(&key(name))).into_iter().collect()
    }

    fn other_than(&self, duty: Duty, who: &super::Who) -> Result<Option<String>, Stop> {
        let names = self.machines(who)?;
        let mut machines = names.iter().filter_map(|name| self.world.machines.get(name));
        let other = machines.find(|machine| machine.duty != duty);
        Ok(other.map(|machine| format!("{} is {:?}", machine.name, machine.duty)))
    }
}
