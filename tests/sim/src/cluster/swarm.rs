//! What a seed means: the shape of a cluster, how patient its nodes are, and the faults it suffers.

use std::time::Duration;

use specter_dht::kv::{self, Rules};
use specter_dht::{Random, Terms, node, ring};

use crate::network::Weather;

/// Which kinds of fault a world has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Single nodes crash and restart, also in the middle of what they do.
    pub crash: bool,
    /// All nodes, or all members of a slot, crash at once.
    pub power: bool,
    /// Nodes stand still for a while.
    pub pause: bool,
    /// Clocks leap ahead.
    pub leap: bool,
    /// Links fail, in one direction or both, for good or on and off.
    pub partition: bool,
    /// Disks are slow, stall, are full, or fail.
    pub disk: bool,
    /// Disks are lost: their machines come back as new nodes.
    pub wipe: bool,
    /// New nodes join, also many at a time.
    pub join: bool,
    /// Nodes leave, and sometimes are stopped before they have.
    pub leave: bool,
}

/// What nodes keep their records in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A list of records, of which a crash keeps a first part.
    Model,
    /// The storage code of a real node on a simulated disk.
    Real {
        /// Length of a segment of the log.
        segment_bytes: u64,
        /// What is given up when the disk is full.
        reserve_bytes: u64,
        /// A log is written down into the snapshot when it is longer than this.
        checkpoint_bytes: u64,
    },
}

/// The shape of a world.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// What it is made from.
    pub seed: u64,
    /// How many nodes it begins with.
    pub nodes: u64,
    /// How many more may join.
    pub spares: u64,
    /// What the cluster agrees on.
    pub terms: Terms,
    /// The fewest and the most virtual nodes of a machine.
    pub seats: (u8, u8),
    /// At how many machines a node looks for the others when it starts.
    pub seeds: u64,
    /// How many clients ask this and that.
    pub clients: u64,
    /// How many clients ask for one key each, over and over, to see how long it cannot be had.
    pub probes: u64,
    /// How many keys are in use at a time.
    pub keys: u64,
    /// For how long faults happen, in microseconds.
    pub chaos_micros: u64,
    /// Whether faults wait until the cluster has formed.
    pub forms_first: bool,
    /// How patient the nodes are.
    pub settings: node::Settings,
    /// Which rules the nodes keep.
    pub rules: Rules,
    /// Whether a machine whose disk was lost comes back as the node that it was, against rule D1: to see that it is noticed.
    pub keeps_identity: bool,
    /// Which faults happen.
    pub faults: Faults,
    /// What nodes keep their records in.
    pub storage: Storage,
    /// Shortest and longest wait between two faults, in microseconds.
    pub fault_gap_micros: (u64, u64),
    /// How slow and how bad the links are.
    pub weather: Weather,
    /// How often a sender is told that nobody is there, of a thousand.
    pub notices: u64,
    /// Shortest and longest time of an fsync, in microseconds.
    pub fsync_micros: (u64, u64),
    /// How far clocks run fast or slow, in parts of a million.
    pub skew_ppm: u64,
    /// Shortest and longest time between two operations of a client, in microseconds.
    pub think_micros: (u64, u64),
    /// Shortest and longest time a client gives a node for an operation, in microseconds.
    pub patience_micros: (u64, u64),
}

/// How many nodes of a cluster a packet passes on average before its answer is there: a request may be sent on.
const WAYS: u64 = 4;

impl Swarm {
    /// The world of a seed. `nodes` and `chaos` are drawn from the seed too when they are not given.
    pub fn new(seed: u64, nodes: Option<u64>, chaos: Option<Duration>) -> Self {
        let mut random = Random::seeded(seed ^ 0xC105_7E12_0000_0001);
        let random = &mut random;
        let drawn = pick(random, &[1, 2, 3, 3, 4, 5, 5, 7, 9, 16, 25]);
        let nodes = nodes.unwrap_or(drawn).max(1);
        let terms = Terms { slot_bits: pick(random, &[0, 1, 3, 5, 8]), replicas: pick(random, &[1, 3, 3, 3, 3, 5]) };
        // Worlds of many slots and many nodes are slow to run: they are drawn, but are shorter.
        let work = nodes * u64::from(terms.slots());
        let chaos_seconds = if work > 1500 { 12 } else { 30 };
        let slowest = random.between(2, 25) * 1000;
        let spares = random.between(0, nodes.min(6) + 1);
        let seats = random.between(1, 4);
        Self {
            seed,
            nodes,
            spares,
            terms,
            seats: (1, u8::try_from(seats).unwrap_or(1)),
            seeds: random.between(1, 4),
            clients: random.between(2, 7),
            probes: random.between(1, 3),
            keys: pick(random, &[1, 3, 6, 12, 40]),
            chaos_micros: chaos.map_or(chaos_seconds * 1_000_000, micros),
            forms_first: random.chance(700),
            settings: draw_lightness(seed, draw_settings(random, slowest)),
            rules: Rules::default(),
            keeps_identity: false,
            faults: Faults {
                crash: random.chance(600),
                power: random.chance(300),
                pause: random.chance(400),
                leap: random.chance(250),
                partition: random.chance(600),
                disk: random.chance(400),
                wipe: random.chance(500),
                join: random.chance(500),
                leave: random.chance(500),
            },
            storage: draw_storage(seed),
            fault_gap_micros: pick(random, &[(50_000, 500_000), (200_000, 2_000_000), (1_000_000, 6_000_000)]),
            weather: Weather {
                delay_micros: (200, slowest),
                loss: pick(random, &[0, 0, 10, 50, 150]),
                duplicate: pick(random, &[0, 10, 50, 150]),
                slow: 10,
            },
            notices: pick(random, &[0, 500, 1000]),
            fsync_micros: (100, random.between(1, 20) * 1000),
            skew_ppm: pick(random, &[0, 1_000, 50_000]),
            think_micros: pick(random, &[(0, 10_000), (1_000, 100_000), (50_000, 600_000)]),
            patience_micros: pick(random, &[(300_000, 1_000_000), (500_000, 5_000_000), (3_000_000, 5_000_000)]),
        }
    }

    /// A quiet world for a scenario: no faults of its own, little delay, and nodes whose patience is drawn from no seed.
    pub fn quiet(seed: u64, nodes: u64, terms: Terms) -> Self {
        Self {
            nodes,
            spares: 0,
            terms,
            seats: (1, 1),
            seeds: 1,
            clients: 0,
            probes: 0,
            chaos_micros: 0,
            forms_first: true,
            settings: brisk_settings(),
            faults: Faults::default(),
            weather: Weather { delay_micros: (500, 2_000), loss: 0, duplicate: 0, slow: 0 },
            notices: 1000,
            fsync_micros: (500, 1_000),
            skew_ppm: 0,
            think_micros: (5_000, 50_000),
            patience_micros: (5_000_000, 5_000_000),
            keys: 12,
            ..Self::new(seed, Some(nodes), None)
        }
    }

    /// Within which time every request must be answered when nothing fails, in microseconds: whom a node asks first may be
    /// long gone, and be asked in vain a few times before the ring is asked where the slot is.
    pub fn answer_micros(&self) -> u64 {
        let Self { settings, .. } = self;
        micros(settings.ring.silence * 2 + settings.attempt * 6 + settings.retry.1 * 4) + 1_000_000
    }

    /// How long the cluster may take to be one again after the faults have stopped, in microseconds: the sum of what its
    /// nodes are told to wait for, one after the other, each several times over because elections may fail.
    pub fn recovery_micros(&self) -> u64 {
        let Self { settings, terms, .. } = self;
        let ring = settings.ring.silence * 6 + settings.ring.quarantine * 3 + settings.ring.probe * 20;
        let election = settings.slot.election * 40 + settings.slot.step_down * 4;
        let hold_off = settings.crash_hold_off * 3 + settings.join_hold_off * 3 + settings.placement * 8;
        let change = settings.slot.abort_after * 4 + Duration::from_micros(self.weather.delay_micros.1 * WAYS * 20);
        let changes = u32::from(terms.slots()) / u32::try_from(settings.changing).unwrap_or(1).max(1) + 1;
        micros(ring + election + hold_off + change * 2 + (settings.placement + Duration::from_millis(500)) * changes)
            + 20_000_000
    }
}

/// Everything is small, so that segments and snapshots follow each other within seconds. With numbers of its own, so that all
/// else in a world is as it is on a model of a disk.
fn draw_storage(seed: u64) -> Storage {
    let random = &mut Random::seeded(seed ^ 0x0D15_CC0D_E000_0001);
    Storage::Real {
        segment_bytes: pick(random, &[512, 2 << 10, 8 << 10, 64 << 10]),
        reserve_bytes: pick(random, &[2 << 10, 16 << 10]),
        checkpoint_bytes: pick(random, &[1 << 10, 8 << 10, 64 << 10, 1 << 20]),
    }
}

/// Everything happens within seconds: elections, the silence that counts as death, the hold-offs before a change.
fn draw_settings(random: &mut Random, slowest_micros: u64) -> node::Settings {
    let millis = Duration::from_millis;
    // A round trip, twice: what is shorter than that is never waited for.
    let trip = slowest_micros * 4 / 1000 + 1;
    let stabilize = random.between(50, 400);
    let heartbeat = random.between(20, 150);
    let election = random.between(150, 700) + trip * 2;
    let ring = ring::Settings {
        successors: 16,
        stabilize: millis(stabilize),
        silence: millis(stabilize * random.between(2, 5) + trip * 2),
        hop: millis(trip + random.between(20, 300)),
        probe: millis(random.between(200, 1500)),
        quarantine: millis(random.between(200, 2000)),
        memory: Duration::from_secs(pick(random, &[60, 3600, 24 * 3600])),
        ..ring::Settings::default()
    };
    let slot = kv::Settings {
        heartbeat: millis(heartbeat),
        sticky: millis(heartbeat * random.below(5)),
        election: millis(election),
        step_down: millis(random.between(400, 3000)),
        // Longer than any client waits, or a copy of a request would be done twice.
        purge_after: millis(random.between(8_000, 10_000)),
        retry_after: millis(random.between(20, 500)),
        audit_after: millis(random.between(300, 5000)),
        abort_after: millis(random.between(500, 3000)),
        candidacy: millis(random.between(500, 8000)),
        transfer_bytes: 100 << random.below(12),
        page_bytes: pick(random, &[1000, 4000, 256 << 10]),
        queue: 256,
    };
    node::Settings {
        ring,
        slot,
        placement: millis(random.between(200, 1500)),
        join_hold_off: millis(random.between(50, 1500)),
        crash_hold_off: millis(random.between(500, 4000)),
        changing: pick(random, &[1, 4, 16, 64]),
        attempt: millis(trip * 2 + random.between(50, 500)),
        retry: (millis(random.between(5, 40)), millis(random.between(100, 800))),
        requests: pick(random, &[64, 4096]),
        packet_bytes: pick(random, &[1024, 64 * 1024, 256 * 1024]),
        ..node::Settings::default()
    }
}

/// What a slot that keeps little is, and how it moves. With numbers of its own, so that all else in a world is as it was.
fn draw_lightness(seed: u64, settings: node::Settings) -> node::Settings {
    let random = &mut Random::seeded(seed ^ 0x0B16_75E7_0000_0001);
    node::Settings {
        light_hold_off: Duration::from_millis(random.between(10, 500)),
        light_bytes: pick(random, &[0, 100, 1000, 64 << 10]),
        changing_bytes: pick(random, &[100, 1000, 1 << 20]),
        ..settings
    }
}

/// The settings of scenarios: those of a real node, made about five times as fast.
fn brisk_settings() -> node::Settings {
    let millis = Duration::from_millis;
    node::Settings {
        ring: ring::Settings {
            stabilize: millis(200),
            silence: millis(600),
            hop: millis(100),
            probe: millis(1000),
            quarantine: millis(1000),
            ..ring::Settings::default()
        },
        slot: kv::Settings {
            heartbeat: millis(50),
            sticky: millis(200),
            election: millis(300),
            step_down: millis(500),
            purge_after: millis(6_000),
            retry_after: millis(200),
            abort_after: millis(3_000),
            ..kv::Settings::default()
        },
        placement: millis(1000),
        light_hold_off: millis(100),
        join_hold_off: millis(500),
        crash_hold_off: millis(3_000),
        attempt: millis(200),
        retry: (millis(5), millis(200)),
        ..node::Settings::default()
    }
}

fn pick<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[usize::try_from(random.below(choices.len() as u64)).unwrap_or_default()]
}

pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
