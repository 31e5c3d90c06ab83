//! Every call that a node makes of its disk, failed once in every way, and what it finds at its next start.
//!
//! A small node keeps registers as the real one does: log, then memory, now and then a checkpoint. Beside it a ledger knows
//! what was issued and what was confirmed.

use std::collections::{BTreeMap, BTreeSet};

use super::{SMALL, opening};
use crate::{
    fault::{Fault, FaultDisk, FaultSnapshot, by_bits, by_seed},
    log::{AppendError, Health, Log, Need},
    record::Entry,
    recover::{Opening, Recovered, open},
    settings::{Policy, Settings},
    snapshot::{Change, Row, Snapshot, SnapshotError, checkpoint},
};

/// Slot and key, and the number and value of the record that set it.
type Memory = BTreeMap<(u16, u8), (u64, Vec<u8>)>;

/// One record: sets a register, or removes it if there is no value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Write {
    slot: u16,
    key: u8,
    value: Vec<u8>,
}

impl Write {
    fn apply(&self, lsn: u64, memory: &mut Memory) {
        if self.value.is_empty() {
            memory.remove(&(self.slot, self.key));
        } else {
            memory.insert((self.slot, self.key), (lsn, self.value.clone()));
        }
    }

    fn payload(&self) -> Vec<u8> {
        [&[self.key], &self.value[..]].concat()
    }
}

/// What the world outside knows.
#[derive(Clone, Default)]
struct Ledger {
    /// All records that may be on the disk, the first one at 0.
    issued: Vec<Write>,
    /// How many of them were confirmed.
    confirmed: usize,
}

impl Ledger {
    /// Checks what a start found, and goes on from there.
    fn check(&mut self, node: &Node, found: &Recovered, policy: Policy, case: &str) {
        let last = usize::try_from(found.last_lsn).unwrap();
        assert!(last <= self.issued.len(), "{case}: record {last} was never issued or was refused");
        if policy == Policy::Always || !found.may_have_forgotten {
            assert!(last >= self.confirmed, "{case}: ends at {last}, and {} were confirmed", self.confirmed);
        }
        let mut expected = Memory::new();
        for (lsn, write) in (1..).zip(&self.issued[..last]) {
            write.apply(lsn, &mut expected);
        }
        assert_eq!(node.memory, expected, "{case}");
        self.issued.truncate(last);
        self.confirmed = last;
    }
}

struct Node {
    log: Log<FaultDisk>,
    snapshot: FaultSnapshot,
    memory: Memory,
    dirty: BTreeSet<(u16, u8)>,
}

/// The node ended. What it left is on the disk.
struct Dead;

impl Node {
    fn start(disk: &FaultDisk, settings: Settings) -> Result<(Self, Recovered), String> {
        let (mut memory, mut dirty) = (Memory::new(), BTreeSet::new());
        let mut snapshot = FaultSnapshot::of(disk);
        let lsn = snapshot.load(&mut |row| match row {
            Row::Register { slot, key, version, value } => {
                memory.insert((slot, key[0]), (u64::from_le_bytes(version.try_into().unwrap()), value.to_vec()));
            }
            Row::Slot { .. } => {}
        });
        let lsn = lsn.map_err(|error| error.to_string())?;
        let opened = open(disk.clone(), &Opening { settings, ..opening() }, lsn, |record| {
            let (slot, payload) = (record.entry.slot, record.entry.payload);
            Write { slot, key: payload[0], value: payload[1..].to_vec() }.apply(record.lsn, &mut memory);
            dirty.insert((slot, payload[0]));
        });
        let (log, found) = opened.map_err(|error| error.to_string())?;
        Ok((Self { log, snapshot, memory, dirty }, found))
    }

    fn write(&mut self, writes: &[Write], need: Need, ledger: &mut Ledger) -> Result<(), Dead> {
        let payloads: Vec<_> = writes.iter().map(Write::payload).collect();
        let entry = |(write, payload): (&Write, _)| Entry { kind: 1, slot: write.slot, payload };
        let entries: Vec<_> = writes.iter().zip(payloads.iter().map(Vec::as_slice)).map(entry).collect();
        ledger.issued.extend_from_slice(writes);
        match self.log.append(&entries, need) {
            Ok(_) => {}
            Err(AppendError::Full) => {
                ledger.issued.truncate(ledger.issued.len() - writes.len());
                return Ok(());
            }
            Err(AppendError::Failed(_)) => return Err(Dead),
            Err(AppendError::Size(size)) => panic!("{size} bytes"),
        }
        if self.log.settings().policy == Policy::Always {
            self.log.sync().map_err(|_| Dead)?;
        }
        ledger.confirmed = ledger.issued.len();
        let first = self.log.next_lsn() - u64::try_from(writes.len()).unwrap();
        for (lsn, write) in (first..).zip(writes) {
            write.apply(lsn, &mut self.memory);
            self.dirty.insert((write.slot, write.key));
        }
        Ok(())
    }

    /// Writes a checkpoint; `meanwhile` is logged before it is done.
    fn checkpoint(&mut self, meanwhile: &[Write], ledger: &mut Ledger) -> Result<(), Dead> {
        let lsn = self.log.sync().map_err(|_| Dead)?;
        let saving = std::mem::take(&mut self.dirty);
        let memory = self.memory.clone();
        let keys: Vec<_> = saving.iter().map(|(slot, key)| (*slot, [*key], memory.get(&(*slot, *key)))).collect();
        let versions: Vec<_> =
            keys.iter().map(|(_, _, found)| found.map_or(0, |(lsn, _)| *lsn).to_le_bytes()).collect();
        let mut changes = Vec::new();
        for ((slot, key, found), version) in keys.iter().zip(&versions) {
            changes.push(match found {
                Some((_, value)) => Change::Put(Row::Register { slot: *slot, key, version, value }),
                None => Change::Remove { slot: *slot, key },
            });
        }
        for write in meanwhile {
            self.write(std::slice::from_ref(write), Need::Ordinary, ledger)?;
        }
        match checkpoint(&mut self.snapshot, lsn, &changes) {
            Ok(saved) => self.log.forget(saved).map_err(|_| Dead),
            Err(SnapshotError::Full(_)) => {
                self.dirty.extend(saving);
                Ok(())
            }
            Err(_) => Err(Dead),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many records of so many bytes in one batch.
    Write(u8, usize),
    Remove,
    /// On a full disk too.
    Essential,
    Checkpoint,
    /// A checkpoint during which this many records of so many bytes are logged.
    Busy(u8, usize),
    Reclaim,
    /// All room is used up from here, and free again after the second.
    Fill,
    Free,
    Close,
    /// The process alone ends; it starts again.
    Kill,
    /// The machine stops, and keeps what the seed says.
    PowerCut(u64),
}

const SCRIPT: [Step; 34] = [
    Step::Write(1, 40),
    Step::Write(3, 100),
    Step::Write(2, 300),
    Step::Write(1, 10),
    Step::Checkpoint,
    Step::Write(2, 200),
    Step::Remove,
    Step::PowerCut(3),
    Step::Write(1, 700),
    Step::Write(4, 90),
    Step::Write(1, 1500),
    Step::Busy(3, 600),
    Step::Busy(1, 50),
    Step::Busy(3, 320),
    Step::Busy(1, 70),
    Step::Kill,
    Step::Write(1, 20),
    Step::Close,
    Step::Write(2, 20),
    Step::Fill,
    Step::Write(2, 400),
    Step::Write(2, 400),
    Step::Essential,
    Step::Write(1, 400),
    Step::Checkpoint,
    Step::Free,
    Step::Reclaim,
    Step::Write(1, 30),
    Step::Write(3, 250),
    Step::PowerCut(5),
    Step::Checkpoint,
    Step::Kill,
    Step::Checkpoint,
    Step::Write(1, 60),
];

struct Run {
    disk: FaultDisk,
    settings: Settings,
    node: Option<Node>,
    ledger: Ledger,
    written: u8,
}

impl Run {
    /// Runs the script until its end, or until the node ends by a fault.
    fn of(script: &[Step], settings: Settings, fault: Option<(u64, Fault)>, case: &str) -> Self {
        let mut run = Self { disk: FaultDisk::new(), settings, node: None, ledger: Ledger::default(), written: 0 };
        if let Some((call, fault)) = fault {
            run.disk.fail_at(call, fault);
        }
        if run.start(case).is_ok() {
            for step in script {
                if run.step(*step, case).is_err() {
                    run.node = None;
                    break;
                }
            }
        }
        run
    }

    fn start(&mut self, case: &str) -> Result<(), Dead> {
        self.node = None;
        match Node::start(&self.disk, self.settings) {
            Ok((mut node, found)) => {
                self.ledger.check(&node, &found, self.settings.policy, case);
                if found.may_have_forgotten {
                    node.log.begun_anew().map_err(|_| Dead)?;
                }
                self.node = Some(node);
                Ok(())
            }
            Err(_) => Err(Dead),
        }
    }

    fn step(&mut self, step: Step, case: &str) -> Result<(), Dead> {
        let node = self.node.as_mut().unwrap();
        match step {
            Step::Write(count, size) => {
                let writes = some_writes(&mut self.written, count, size);
                node.write(&writes, Need::Ordinary, &mut self.ledger)
            }
            Step::Busy(count, size) => node.checkpoint(&some_writes(&mut self.written, count, size), &mut self.ledger),
            Step::Remove => {
                node.write(&[Write { slot: 1, key: 1, value: Vec::new() }], Need::Ordinary, &mut self.ledger)
            }
            Step::Essential => {
                node.write(&[Write { slot: 0, key: 9, value: vec![0xee; 90] }], Need::Essential, &mut self.ledger)
            }
            Step::Checkpoint => node.checkpoint(&[], &mut self.ledger),
            Step::Reclaim => node.log.reclaim().map(drop).map_err(|_| Dead),
            Step::Fill => {
                self.disk.set_capacity(Some(self.disk.used_bytes()));
                Ok(())
            }
            Step::Free => {
                self.disk.set_capacity(None);
                Ok(())
            }
            Step::Close => {
                self.node.take().unwrap().log.close().map_err(|_| Dead)?;
                self.start(case)
            }
            Step::Kill => {
                self.disk = self.disk.after_kill();
                self.start(case)
            }
            Step::PowerCut(seed) => {
                self.disk = self.disk.after_crash(by_seed(seed));
                self.start(case)
            }
        }
    }

    /// Checks what the next start finds on every disk that the end may have left, and returns how many there were.
    fn check_ends(&self, case: &str) -> u64 {
        let mut images = Vec::new();
        if !self.disk.is_crashed() {
            images.push((self.disk.after_kill(), "killed".to_owned()));
        }
        match self.disk.unsynced() {
            few @ ..=6 => {
                images
                    .extend((0..1 << few).map(|bits| (self.disk.after_crash(by_bits(bits)), format!("kept {bits:b}"))));
            }
            _ => {
                images.push((self.disk.after_crash(|| false), "kept nothing".to_owned()));
                images.push((self.disk.after_crash(|| true), "kept all".to_owned()));
                images.extend((0..16).map(|seed| (self.disk.after_crash(by_seed(seed)), format!("seed {seed}"))));
            }
        }
        let count = u64::try_from(images.len()).unwrap();
        for (disk, kept) in images {
            self.check_end(&disk, &format!("{case}, {kept}"));
        }
        count
    }

    fn check_end(&self, disk: &FaultDisk, case: &str) {
        disk.set_capacity(None);
        let mut ledger = self.ledger.clone();
        let start =
            |disk: &FaultDisk| Node::start(disk, self.settings).unwrap_or_else(|error| panic!("{case}: {error}"));
        let (node, found) = start(disk);
        ledger.check(&node, &found, self.settings.policy, case);
        drop(node);
        // A second start finds the same, whatever the power did to the first.
        let disk = disk.after_crash(|| false);
        let (mut node, again) = start(&disk);
        assert_eq!((again.last_lsn, &again.torn), (found.last_lsn, &None), "{case}");
        assert!(again.boot.number > found.boot.number, "{case}");
        ledger.check(&node, &again, self.settings.policy, case);
        assert_eq!(node.log.health(), Health::Open, "{case}");
        let more = [Write { slot: 1, key: 200, value: vec![1; 50] }];
        assert!(
            node.write(&more, Need::Ordinary, &mut ledger).is_ok() && node.checkpoint(&[], &mut ledger).is_ok(),
            "{case}"
        );
        assert_eq!(ledger.confirmed, ledger.issued.len(), "{case}");
        let disk = disk.after_crash(|| false);
        let (node, found) = start(&disk);
        ledger.check(&node, &found, Policy::Always, case);
    }
}

fn some_writes(written: &mut u8, count: u8, size: usize) -> Vec<Write> {
    let mut next = || {
        *written = written.wrapping_add(1);
        Write { slot: u16::from(*written % 2), key: *written % 5, value: vec![*written; size] }
    };
    (0..count).map(|_| next()).collect()
}

fn all_faults(settings: Settings) -> u64 {
    let plain = Run::of(&SCRIPT, settings, None, "no fault");
    assert!(plain.node.is_some());
    let (calls, mut disks) = (plain.disk.calls(), plain.check_ends("no fault"));
    for call in 0..calls {
        for fault in Fault::ALL {
            let case = format!("{fault:?} at call {call}");
            disks += Run::of(&SCRIPT, settings, Some((call, fault)), &case).check_ends(&case);
        }
    }
    println!("{calls} calls, {disks} disks");
    disks
}

/// Fails every call of the start after a power cut too.
fn all_faults_of_a_start(script: &[Step], seed: u64) -> u64 {
    let mut disks = 0;
    let cut = |case: &str| {
        let mut run = Run::of(script, SMALL, None, case);
        run.node = None;
        run.disk = run.disk.after_crash(by_seed(seed));
        run
    };
    let mut plain = cut("no fault");
    let first = plain.disk.calls();
    assert!(plain.start("no fault").is_ok());
    for call in first..plain.disk.calls() {
        for fault in Fault::ALL {
            let case = format!("{} steps, power cut {seed}, {fault:?} at call {call}", script.len());
            let mut run = cut(&case);
            run.disk.fail_at(call, fault);
            let started = run.start(&case);
            assert!(started.is_ok() || fault != Fault::Short, "{case}");
            disks += run.check_ends(&case);
        }
    }
    disks
}

#[test]
fn nothing_confirmed_is_lost_whichever_call_fails() {
    assert!(all_faults(SMALL) > 4000);
}

#[test]
fn nothing_confirmed_is_lost_whichever_call_of_a_start_fails() {
    let ends = (1..=SCRIPT.len()).step_by(3);
    assert!(ends.map(|end| all_faults_of_a_start(&SCRIPT[..end], 7)).sum::<u64>() > 5000);
}

#[test]
fn with_a_sync_every_second_a_power_cut_loses_an_end_and_says_so() {
    assert!(all_faults(Settings { policy: Policy::EverySecond, ..SMALL }) > 4000);
}

/// A script that the seed decides.
fn random_script(seed: u64) -> Vec<Step> {
    let mut bit = by_seed(seed);
    let mut number = |bits: u32| (0..bits).fold(0_u8, |number, _| number << 1 | u8::from(bit()));
    let mut step = || match number(4) {
        0 => Step::Checkpoint,
        1 => Step::Busy(number(1) + 1, 1 + usize::from(number(8)) * 3),
        2 => Step::Remove,
        3 => Step::Kill,
        4 | 5 => Step::PowerCut(u64::from(number(8))),
        6 => Step::Close,
        _ => Step::Write(number(2) + 1, 1 + usize::from(number(8)) * usize::from(number(2))),
    };
    (0..40).map(|_| step()).collect()
}

#[test]
fn nothing_confirmed_is_lost_by_any_script_and_fault() {
    for seed in 0..120 {
        let script = random_script(seed);
        let plain = Run::of(&script, SMALL, None, "no fault");
        for fault in Fault::ALL {
            let call = seed * 7919 % plain.disk.calls();
            let case = format!("script {seed}, {fault:?} at call {call}");
            Run::of(&script, SMALL, Some((call, fault)), &case).check_ends(&case);
        }
    }
}
