use super::*;
use crate::{
    fault::{Fault, FaultDisk},
    recover::{Opening, open},
    settings::Settings,
    tests::{SMALL, filled, numbered, numbers, opening, reopen},
};
use std::sync::mpsc::{Receiver, channel};

type Answers = Receiver<(u64, Result<u64, AppendError>)>;

/// A writer with what its answers and healths come out of.
struct Rig {
    disk: FaultDisk,
    writer: Writer<FaultDisk>,
    healths: Receiver<Health>,
}

fn rig(settings: Settings) -> Rig {
    let disk = FaultDisk::new();
    let (log, _) = open(disk.clone(), &Opening { settings, ..opening() }, 0, |_| ()).unwrap();
    let (sender, healths) = channel();
    let writer = Writer::start(log, move |health| sender.send(health).unwrap()).unwrap();
    Rig { disk, writer, healths }
}

fn owned(payload: Vec<u8>) -> OwnedEntry {
    OwnedEntry { kind: 1, slot: 2, payload }
}

impl Rig {
    /// Submits records of these numbers, one a submission.
    fn submit(&self, lsns: std::ops::RangeInclusive<u64>, need: Need) -> Answers {
        let (sender, answers) = channel();
        for lsn in lsns {
            let sender = sender.clone();
            let done = move |result| sender.send((lsn, result)).unwrap();
            self.writer.submit(vec![owned(numbered(lsn))], need, done).unwrap();
        }
        answers
    }

    /// Submits one record whose sync is held from now on.
    fn hold(&self) -> Answers {
        self.disk.hold_syncs(true);
        let answers = self.submit(1..=1, Need::Ordinary);
        self.disk.wait_for_held_sync();
        answers
    }
}

#[test]
fn all_that_waits_shares_one_sync_and_is_answered_in_order() {
    let rig = rig(Settings { segment_bytes: 1 << 20, ..SMALL });
    let before = rig.disk.syncs();
    let first = rig.hold();
    let rest = rig.submit(2..=400, Need::Ordinary);
    assert!(first.try_recv().is_err(), "answered before it was durable");
    assert_eq!(rig.writer.durable_lsn(), 0);
    rig.disk.hold_syncs(false);
    assert_eq!(first.recv().unwrap().1.unwrap(), 1);
    for lsn in 2..=400 {
        let (number, result) = rest.recv().unwrap();
        assert_eq!((number, result.unwrap()), (lsn, lsn));
    }
    assert_eq!((rig.disk.syncs() - before, rig.writer.durable_lsn()), (2, 400));
    assert_eq!(numbers(&reopen(&rig.disk.after_crash(|| false))).len(), 400);
}

#[test]
fn a_submission_of_several_records_is_told_the_number_of_its_last() {
    let rig = rig(SMALL);
    let (sender, answers) = channel();
    for size in [1, 3, 2] {
        let sender = sender.clone();
        let entries = (0..size).map(|_| owned(vec![1])).collect();
        rig.writer.submit(entries, Need::Ordinary, move |result| sender.send(result.unwrap()).unwrap()).unwrap();
    }
    assert_eq!([(); 3].map(|()| answers.recv().unwrap()), [1, 4, 6]);
}

#[test]
fn too_much_that_waits_is_refused_at_once() {
    let rig = rig(SMALL);
    let first = rig.hold();
    let big = || vec![owned(vec![1; (QUEUE_BYTES_MAX / 4) - 64])];
    let (sender, answers) = channel();
    let mut taken = 0;
    let refused = loop {
        let sender = sender.clone();
        let done = move |result: Result<u64, AppendError>| sender.send(result.is_ok()).unwrap();
        match rig.writer.submit(big(), Need::Ordinary, done) {
            Ok(()) => taken += 1,
            Err(busy) => break busy,
        }
    };
    assert_eq!((refused, taken), (Busy, 4));
    rig.disk.hold_syncs(false);
    assert!(first.recv().unwrap().1.is_ok());
    assert!((0..taken).all(|_| answers.recv().unwrap()));
}

#[test]
fn every_second_answers_first_and_syncs_within_the_second() {
    let rig = rig(Settings { policy: Policy::EverySecond, ..SMALL });
    rig.disk.hold_syncs(true);
    let answers = rig.submit(1..=3, Need::Ordinary);
    for lsn in 1..=3 {
        assert_eq!(answers.recv().unwrap().1.unwrap(), lsn);
    }
    assert_eq!(rig.writer.durable_lsn(), 0);
    rig.disk.wait_for_held_sync();
    rig.disk.hold_syncs(false);
    drop(rig.writer);
    let opened = reopen(&rig.disk.after_crash(|| false));
    assert_eq!((numbers(&opened), opened.found.may_have_forgotten), (vec![1, 2, 3], true));
}

#[test]
fn a_failed_sync_is_told_to_all_that_depend_on_it_and_to_the_node() {
    let rig = rig(SMALL);
    rig.disk.hold_syncs(true);
    // The write, then its sync.
    rig.disk.fail_at(rig.disk.calls() + 1, Fault::Io);
    let first = rig.submit(1..=1, Need::Ordinary);
    rig.disk.wait_for_held_sync();
    let rest = rig.submit(2..=9, Need::Essential);
    rig.disk.hold_syncs(false);
    assert!(matches!(first.recv().unwrap().1, Err(AppendError::Failed(_))));
    assert_eq!(rig.healths.recv().unwrap(), Health::Failed);
    for (_, result) in rest.into_iter().take(8) {
        assert!(matches!(result, Err(AppendError::Failed(_))));
    }
    rig.writer.close().unwrap_err();
}

#[test]
fn a_full_disk_is_told_and_so_is_room() {
    let rig = rig(Settings { reclaim_every: Duration::from_millis(5), ..SMALL });
    rig.disk.set_capacity(Some(rig.disk.used_bytes()));
    let answers = rig.submit(1..=20, Need::Ordinary);
    let refused = answers.iter().take(20).filter(|(_, result)| matches!(result, Err(AppendError::Full))).count();
    assert!(refused >= 13, "{refused}");
    assert_eq!(rig.healths.recv().unwrap(), Health::Full);
    assert!(rig.submit(50..=50, Need::Essential).recv().unwrap().1.is_ok());
    rig.disk.set_capacity(None);
    assert_eq!(rig.healths.recv().unwrap(), Health::Open);
    assert!(rig.submit(51..=51, Need::Ordinary).recv().unwrap().1.is_ok());
}

#[test]
fn one_record_that_does_not_fit_harms_no_other_of_its_group() {
    let rig = rig(SMALL);
    let first = rig.hold();
    let good = rig.submit(2..=2, Need::Ordinary);
    let (sender, bad) = channel();
    rig.writer.submit(vec![owned(Vec::new())], Need::Ordinary, move |result| sender.send(result).unwrap()).unwrap();
    let after = rig.submit(3..=3, Need::Ordinary);
    rig.disk.hold_syncs(false);
    assert_eq!(first.recv().unwrap().1.unwrap(), 1);
    assert_eq!(good.recv().unwrap().1.unwrap(), 2);
    assert!(matches!(bad.recv().unwrap(), Err(AppendError::Size(0))));
    assert_eq!(after.recv().unwrap().1.unwrap(), 3);
}

#[test]
fn closing_answers_what_waits_and_marks_the_end() {
    let rig = rig(SMALL);
    let first = rig.hold();
    let rest = rig.submit(2..=30, Need::Ordinary);
    rig.disk.hold_syncs(false);
    rig.writer.close().unwrap();
    assert_eq!(first.iter().count() + rest.iter().filter(|(_, result)| result.is_ok()).count(), 30);
    let opened = reopen(&rig.disk.after_crash(|| false));
    assert!(opened.found.was_closed);
    assert_eq!(numbers(&opened), (1..=30).collect::<Vec<_>>());
}

#[test]
fn a_writer_that_is_dropped_leaves_a_log_as_after_a_crash() {
    let disk = FaultDisk::new();
    drop(Writer::start(filled(&disk, 3), |_| ()).unwrap());
    assert!(!reopen(&disk).found.was_closed);
}

#[test]
fn what_is_asked_beside_records_is_done_before_the_end() {
    let disk = FaultDisk::new();
    let settings = Settings { policy: Policy::EverySecond, ..SMALL };
    open(disk.clone(), &Opening { settings, ..opening() }, 0, |_| ()).unwrap();
    let opened = reopen(&disk);
    assert!(opened.found.may_have_forgotten);
    let writer = Writer::start(opened.log, |_| ()).unwrap();
    writer.begun_anew();
    writer.close().unwrap();
    assert!(!reopen(&disk).found.may_have_forgotten);
}
