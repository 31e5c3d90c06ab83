use super::*;
use crate::{
    fault::{Fault, FaultDisk, by_seed},
    tests::{SMALL, filled, numbered, numbers, put, reopen, segments},
};

fn entry(payload: &[u8]) -> Entry<'_> {
    Entry { kind: 1, slot: 2, payload }
}

#[test]
fn what_is_synced_survives_a_crash_and_what_is_not_survives_in_order() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 1);
    for lsn in 2..=4 {
        log.append(&[entry(&numbered(lsn)), entry(&numbered(lsn))], Need::Ordinary).unwrap();
    }
    assert_eq!(log.durable_lsn(), 1);
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), [1]);
    assert_eq!(numbers(&reopen(&disk.after_kill())), [1, 2, 2, 3, 3, 4, 4]);
    for seed in 0..200 {
        let found = numbers(&reopen(&disk.after_crash(by_seed(seed))));
        assert!(!found.is_empty() && [1, 2, 2, 3, 3, 4, 4].starts_with(&found), "seed {seed}: {found:?}");
    }
}

#[test]
fn records_go_on_in_the_next_segment() {
    let disk = FaultDisk::new();
    let log = filled(&disk, 30);
    assert!(segments(&disk).len() > 3);
    assert!(segments(&disk).iter().all(|path| disk.contents(path).unwrap().len() == 1024));
    drop(log);
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), (1..=30).collect::<Vec<_>>());
}

#[test]
fn records_within_a_segment_need_one_sync_and_no_new_room() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 1);
    let (syncs, used) = (disk.syncs(), disk.used_bytes());
    let payload = numbered(2);
    log.append(&[entry(&payload), entry(&payload), entry(&payload)], Need::Ordinary).unwrap();
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!((disk.syncs(), disk.used_bytes()), (syncs + 1, used));
}

#[test]
fn a_batch_longer_than_a_segment_gets_a_longer_one() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 1);
    put(&mut log, &[&[9; 5000], &[8; 300]]);
    put(&mut log, &[b"after"]);
    let found = reopen(&disk.after_crash(|| false)).records;
    assert_eq!(found[1..], [vec![9; 5000], vec![8; 300], b"after".to_vec()]);
}

#[test]
fn a_record_without_or_with_too_much_payload_is_refused_with_its_batch() {
    let mut log = filled(&FaultDisk::new(), 1);
    for payload in [Vec::new(), vec![0; PAYLOAD_BYTES_MAX + 1]] {
        let refused = log.append(&[entry(b"good"), entry(&payload)], Need::Ordinary);
        assert!(matches!(refused, Err(AppendError::Size(_))), "{refused:?}");
    }
    let long = vec![0; PAYLOAD_BYTES_MAX];
    assert!(matches!(log.append(&[entry(&long), entry(&long)], Need::Ordinary), Err(AppendError::Size(_))));
    assert_eq!((log.next_lsn(), log.health()), (2, Health::Open));
}

#[test]
fn a_failed_sync_is_final_and_a_start_reads_what_is_there() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 2);
    log.append(&[entry(&numbered(3))], Need::Ordinary).unwrap();
    disk.fail_at(disk.calls(), Fault::Io);
    log.sync().unwrap_err();
    assert_eq!((log.health(), log.durable_lsn()), (Health::Failed, 2));
    log.sync().unwrap_err();
    assert!(matches!(log.append(&[entry(b"more")], Need::Essential), Err(AppendError::Failed(_))));
    log.reclaim().unwrap_err();
    log.close().unwrap_err();
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), [1, 2]);
}

#[test]
fn a_failed_write_is_final() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 2);
    disk.fail_at(disk.calls(), Fault::Io);
    let error = log.append(&[entry(&numbered(3))], Need::Ordinary).unwrap_err();
    assert!(error.to_string().contains("write of log/0000000000000001.seg"), "{error}");
    assert_eq!(log.health(), Health::Failed);
}

#[test]
fn a_full_disk_refuses_all_but_what_is_essential_until_there_is_room() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 1);
    disk.set_capacity(Some(disk.used_bytes()));
    let mut last = 1;
    let refused = loop {
        match log.append(&[entry(&numbered(last + 1))], Need::Ordinary) {
            Ok(lsn) => last = lsn,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full));
    assert_eq!(log.health(), Health::Full);
    // In the segment there is no room left, so this goes into the reserve's.
    assert_eq!(log.append(&[entry(&numbered(last + 1))], Need::Essential).unwrap(), last + 1);
    assert!(matches!(log.append(&[entry(b"ordinary")], Need::Ordinary), Err(AppendError::Full)));
    log.sync().unwrap();
    assert_eq!(log.reclaim().unwrap(), Health::Full);
    disk.set_capacity(None);
    assert_eq!(log.reclaim().unwrap(), Health::Open);
    put(&mut log, &[&numbered(last + 2)]);
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), (1..=last + 2).collect::<Vec<_>>());
}

#[test]
fn an_essential_record_is_taken_when_it_is_the_first_to_find_the_disk_full() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 1);
    disk.set_capacity(Some(disk.used_bytes()));
    for lsn in 2..=10 {
        log.append(&[entry(&numbered(lsn))], Need::Essential).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(log.health(), Health::Full);
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_record_refused_in_the_middle_of_its_write_never_comes_back() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 2);
    log.append(&[entry(&numbered(3))], Need::Ordinary).unwrap();
    disk.fail_at(disk.calls(), Fault::NoSpace);
    let payload = numbered(99);
    // Half of the bytes are written, and so the first two records as a whole.
    let batch = [entry(&payload), entry(&payload), entry(&payload), entry(&payload)];
    assert!(matches!(log.append(&batch, Need::Ordinary), Err(AppendError::Full)));
    for seed in 0..50 {
        let found = numbers(&reopen(&disk.after_crash(by_seed(seed))));
        assert_eq!(found, [1, 2, 3], "seed {seed}");
    }
    assert_eq!(log.reclaim().unwrap(), Health::Open);
    put(&mut log, &[&numbered(4)]);
    assert_eq!(numbers(&reopen(&disk.after_crash(|| false))), [1, 2, 3, 4]);
}

#[test]
fn a_log_without_room_for_its_reserve_starts_full() {
    let disk = FaultDisk::new();
    filled(&disk, 3).close().unwrap();
    disk.remove(RESERVE).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + SMALL.segment_bytes + 100));
    let mut opened = reopen(&disk);
    assert_eq!((opened.log.health(), numbers(&opened).len()), (Health::Full, 3));
    disk.set_capacity(None);
    assert_eq!(opened.log.reclaim().unwrap(), Health::Open);
}
