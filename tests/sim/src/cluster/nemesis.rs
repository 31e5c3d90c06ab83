//! Which faults happen when.

use specter_dht::Random;

use crate::cluster::Swarm;
use crate::cluster::machine::Name;

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Whom {
    /// This one.
    One(Name),
    /// Whoever leads the slot with this number, modulo how many there are.
    LeaderOf(u64),
}

/// A fault.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Fault {
    /// A machine crashes, at once or in the middle of what it does next.
    Crash { whom: Whom, midway: Option<u64>, down_micros: u64 },
    /// All machines crash at once.
    Power { down_micros: u64 },
    /// All members of a slot crash at once.
    CrashSlot { slot: u64, down_micros: u64 },
    /// A machine stands still.
    Pause { whom: Whom, micros: u64 },
    /// A clock leaps ahead.
    Leap { whom: Whom, micros: u64 },
    /// A machine is cut off, in one direction or both.
    Isolate { whom: Whom, inward: bool, outward: bool },
    /// A machine is cut off on and off.
    Flap { whom: Whom, times: u32 },
    /// Two groups cannot talk; a machine in both if there is a bridge.
    Split { mask: u64, bridge: Option<Name> },
    /// All links work again.
    Heal,
    /// The links become better or worse.
    Weather { loss: u64, times_slower: u64 },
    /// Fsyncs of a machine take this much longer.
    Slow { whom: Whom, micros: u64 },
    /// A machine syncs nothing for a while.
    Stall { whom: Whom, micros: u64 },
    /// A disk is full for a while.
    Full { whom: Whom, micros: u64 },
    /// A disk fails once: its machine stops.
    Broken { whom: Whom, down_micros: u64 },
    /// A disk is lost.
    Wipe { whom: Whom, down_micros: u64 },
    /// Machines that are away join.
    Join { count: u64, afresh: bool },
    /// Machines leave, and are stopped after some time whether they have or not.
    Leave { whom: Whom, deadline_micros: u64 },
    /// The machine leaves that all look for first.
    SeedRestart { down_micros: u64 },
}

/// Draws the next fault; none when the kind drawn does not happen in this world.
pub(crate) fn draw(swarm: &Swarm, random: &mut Random) -> Option<Fault> {
    let faults = swarm.faults;
    let machines = swarm.nodes + swarm.spares;
    let one = Name(u16::try_from(1 + random.below(machines)).unwrap_or(1));
    let whom = if random.chance(400) { Whom::LeaderOf(random.next_u64()) } else { Whom::One(one) };
    let down_micros = if random.chance(700) { random.between(1_000, 1_500_000) } else { random.between(0, 10_000_000) };
    match random.below(100) {
        0..14 if faults.crash => {
            let midway = random.chance(400).then(|| random.between(1, 8));
            Some(Fault::Crash { whom, midway, down_micros })
        }
        14..17 if faults.crash => Some(Fault::SeedRestart { down_micros }),
        17..20 if faults.power => Some(Fault::Power { down_micros: random.between(1_000, 2_000_000) }),
        20..24 if faults.power => {
            Some(Fault::CrashSlot { slot: random.next_u64(), down_micros: random.between(1_000, 2_000_000) })
        }
        24..31 if faults.pause => Some(Fault::Pause { whom, micros: random.between(10_000, 5_000_000) }),
        31..34 if faults.leap => Some(Fault::Leap { whom, micros: random.between(10_000, 30_000_000) }),
        34..41 if faults.partition => {
            let ways = random.below(4);
            Some(Fault::Isolate { whom, inward: ways != 1, outward: ways != 2 })
        }
        41..44 if faults.partition => {
            Some(Fault::Flap { whom, times: u32::try_from(random.between(2, 12)).unwrap_or(2) })
        }
        44..50 if faults.partition => {
            Some(Fault::Split { mask: random.next_u64(), bridge: random.chance(300).then_some(one) })
        }
        50..60 if faults.partition => Some(Fault::Heal),
        60..63 => {
            let bad = random.chance(500);
            let loss = if bad { random.between(0, 300) } else { swarm.weather.loss };
            Some(Fault::Weather { loss, times_slower: if bad { random.between(1, 8) } else { 1 } })
        }
        63..66 if faults.disk => {
            Some(Fault::Slow { whom, micros: if random.chance(500) { 0 } else { random.between(20_000, 400_000) } })
        }
        66..68 if faults.disk => Some(Fault::Stall { whom, micros: random.between(100_000, 10_000_000) }),
        68..70 if faults.disk => Some(Fault::Full { whom, micros: random.between(100_000, 10_000_000) }),
        70..72 if faults.disk => Some(Fault::Broken { whom, down_micros }),
        72..79 if faults.wipe => Some(Fault::Wipe { whom, down_micros }),
        79..88 if faults.join => {
            let count = if random.chance(300) { random.between(2, swarm.spares.max(2)) } else { 1 };
            Some(Fault::Join { count, afresh: random.chance(500) })
        }
        88..97 if faults.leave => {
            let deadline_micros = if random.chance(600) { 30_000_000 } else { random.between(10_000, 3_000_000) };
            Some(Fault::Leave { whom, deadline_micros })
        }
        _ => None,
    }
}
