//! What a seed means: the shape of a world and the faults it suffers.

use std::time::Duration;

use specter_dht::Random;
use specter_dht::kv::{Rules, Settings};

/// Longest time a client tries one operation, in microseconds.
pub const CLIENT_BUDGET_MICROS: u64 = 1_000_000;
/// Longest pause of a node, in microseconds.
pub const PAUSE_MICROS: u64 = 1_000_000;

/// Which kinds of fault a world has.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Single nodes crash and restart.
    pub crash: bool,
    /// All nodes crash at once.
    pub power: bool,
    /// Nodes stand still for a while.
    pub pause: bool,
    /// Links fail, in one direction or both.
    pub partition: bool,
    /// Disks stall.
    pub slow_disk: bool,
    /// The ring wants other members.
    pub reconfigure: bool,
    /// Disks lose single values, one node's at a time.
    pub lose: bool,
}

/// The shape of a world.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// What it is made from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u64,
    /// How many of them keep the slot.
    pub replicas: u64,
    /// How many clients ask.
    pub clients: u64,
    /// For how long faults happen, in microseconds.
    pub chaos_micros: u64,
    /// How long the world may take to recover afterwards, in microseconds.
    pub calm_micros: u64,
    /// How long other members must have been wanted, in microseconds.
    pub hold_off_micros: u64,
    /// How patient the nodes are.
    pub settings: Settings,
    /// Which rules the nodes keep.
    pub rules: Rules,
    /// Which faults happen.
    pub faults: Faults,
    /// Shortest and longest wait between two faults, in microseconds.
    pub fault_gap_micros: (u64, u64),
    /// Shortest and usual longest delay of a message, in microseconds.
    pub delay_micros: (u64, u64),
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages that arrive twice, of a thousand.
    pub duplicate: u64,
    /// Shortest and longest time of an fsync, in microseconds.
    pub fsync_micros: (u64, u64),
    /// How far clocks run fast or slow, in parts of a million.
    pub skew_ppm: u64,
    /// Shortest and longest time between two operations of a client, in microseconds.
    pub think_micros: (u64, u64),
    /// How many keys are in use at a time.
    pub keys: u64,
}

impl Swarm {
    /// The world of a seed. `nodes` and `chaos` are drawn from the seed too when they are not given.
    pub fn new(seed: u64, nodes: Option<u64>, chaos: Option<Duration>) -> Self {
        let mut random = Random::seeded(seed ^ 0x5EED_0FA1_1C4A_0515);
        let random = &mut random;
        let nodes = nodes.unwrap_or_else(|| [1, 2, 3, 4, 5, 5, 6, 7][pick(random, 8)]).max(1);
        let replicas = [1, 3, 3, 3, 3, 3, 5, 5][pick(random, 8)].min(nodes);
        let heartbeat = random.between(10, 80);
        let election = random.between(80, 500);
        let millis = Duration::from_millis;
        let settings = Settings {
            heartbeat: millis(heartbeat),
            sticky: millis(heartbeat * random.below(5)),
            election: millis(election),
            step_down: millis(random.between(300, 4000)),
            purge_after: millis(random.between(3000, 4000)),
            retry_after: millis(random.between(100, 800)),
            abort_after: millis(random.between(500, 3000)),
            transfer_bytes: 100 << random.below(6),
            queue: 64,
            ..Settings::default()
        };
        let slowest = random.between(2, 25) * 1000;
        let mut swarm = Self {
            seed,
            nodes,
            replicas,
            clients: random.between(2, 7),
            chaos_micros: chaos.map_or(12_000_000, |span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
            calm_micros: 20_000_000,
            hold_off_micros: u64::try_from(settings.retry_after.as_micros()).unwrap_or_default(),
            settings,
            rules: Rules::default(),
            faults: Faults {
                crash: random.chance(600),
                power: random.chance(300),
                pause: random.chance(500),
                partition: random.chance(700),
                slow_disk: random.chance(300),
                reconfigure: random.chance(700),
                lose: false,
            },
            fault_gap_micros: [(20_000, 200_000), (100_000, 1_000_000), (300_000, 3_000_000)][pick(random, 3)],
            delay_micros: (200, slowest),
            loss: [0, 0, 10, 50, 200][pick(random, 5)],
            duplicate: [0, 10, 50, 150][pick(random, 4)],
            fsync_micros: (100, random.between(1, 20) * 1000),
            skew_ppm: [0, 1_000, 50_000][pick(random, 3)],
            think_micros: [(0, 10_000), (1_000, 100_000), (50_000, 600_000)][pick(random, 3)],
            keys: random.between(1, 6),
        };
        // Drawn last, so that what a seed means otherwise stays as it was.
        // Of fewer than three none can do without the vote of one that has lost something.
        swarm.faults.lose = random.chance(400) && replicas >= 3;
        swarm.settings.page_bytes = pick(random, 1000);
        swarm.settings.audit_after = millis(random.between(300, 5000));
        swarm.settings.candidacy = millis(random.between(500, 8000));
        swarm
    }
}

fn pick(random: &mut Random, choices: u64) -> usize {
    usize::try_from(random.below(choices)).unwrap_or_default()
}
