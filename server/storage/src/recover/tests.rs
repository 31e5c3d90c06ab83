use super::*;
use crate::{
    fault::{FaultDisk, by_seed},
    log::Need,
    record::Entry,
    segment::HEADER_BYTES,
    tests::{NODE, filled, numbered, numbers, opening, put, reopen, segments, try_reopen},
};

/// A closed log of this many records, as it is on the disk.
fn closed(records: u64) -> FaultDisk {
    let disk = FaultDisk::new();
    filled(&disk, records).close().unwrap();
    disk.after_crash(|| false)
}

fn error(disk: &FaultDisk) -> OpenError {
    let before = (disk.paths(), disk.unsynced());
    let error = try_reopen(disk, 0).map(|opened| opened.found).unwrap_err();
    assert_eq!((disk.paths(), disk.unsynced()), before, "changed by {error}");
    error
}

fn patch(disk: &FaultDisk, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.contents(path).unwrap();
    change(&mut bytes);
    disk::replace(disk, path, &bytes).unwrap();
}

#[test]
fn a_new_directory_begins_at_the_first_start() {
    let disk = FaultDisk::new();
    let found = reopen(&disk).found;
    let boot = Boot { number: 1, id: [7; 16] };
    let nothing = Recovered { boot, last_lsn: 0, records: 0, torn: None, was_closed: false, may_have_forgotten: false };
    assert_eq!(found, nothing);
}

#[test]
fn every_start_has_a_greater_number_also_without_records() {
    let mut disk = FaultDisk::new();
    for number in 1..=5 {
        disk = disk.after_crash(|| false);
        let opened = reopen(&disk);
        assert_eq!(opened.found.boot.number, number);
        if number % 2 == 0 {
            opened.log.close().unwrap();
        }
    }
}

#[test]
fn first_starts_may_be_cut_short_again_and_again() {
    let mut disk = FaultDisk::new();
    for number in 1..=3 {
        disk = disk.after_crash(|| false);
        assert_eq!(reopen(&disk).found.boot.number, number);
        // The start was cut short before its last step.
        disk::remove_if_there(&disk, "BOOT").unwrap();
        disk.sync_folder("").unwrap();
    }
    // With a record, a missing file is a missing file.
    let disk = closed(1);
    disk::remove_if_there(&disk, "BOOT").unwrap();
    assert!(matches!(error(&disk), OpenError::Missing { path: "BOOT" }));
}

#[test]
fn a_closed_log_says_so() {
    let disk = closed(20);
    let opened = reopen(&disk);
    assert!(opened.found.was_closed);
    assert_eq!((numbers(&opened), opened.found.last_lsn), ((1..=20).collect::<Vec<_>>(), 20));
    drop(opened);
    assert!(!reopen(&disk).found.was_closed);
}

#[test]
fn a_torn_tail_is_cut_and_kept_aside() {
    let disk = FaultDisk::new();
    let mut log = filled(&disk, 3);
    log.append(&[Entry { kind: 1, slot: 1, payload: &[0xcd; 700] }], Need::Ordinary).unwrap();
    let mut torn_images = 0;
    for seed in 0..20 {
        let torn = disk.after_crash(by_seed(seed));
        let opened = reopen(&torn);
        assert!(opened.records.len() >= 3);
        if let Some(cut) = &opened.found.torn {
            torn_images += 1;
            assert_eq!(cut.lsn, 4);
            assert_eq!(torn.contents(cut.kept.as_deref().unwrap()).unwrap().len(), cut.size_bytes);
            assert_eq!(reopen(&torn.after_crash(|| false)).found.torn, None);
        }
    }
    assert!(torn_images > 0);
}

#[test]
fn only_the_newest_torn_tail_is_kept() {
    let disk = FaultDisk::new();
    drop(filled(&disk, 1));
    for _ in 0..3 {
        let last = segments(&disk).pop().unwrap();
        patch(&disk, &last, |bytes| bytes.extend_from_slice(b"torn"));
        let mut opened = reopen(&disk);
        assert!(opened.found.torn.is_some());
        put(&mut opened.log, &[&numbered(1)]);
    }
    assert_eq!(disk.paths().iter().filter(|path| path.contains("torn-")).count(), 1);
}

#[test]
fn damage_before_the_last_sync_is_told_with_its_place() {
    let disk = FaultDisk::new();
    drop(filled(&disk, 4));
    disk.flip("log/0000000000000001.seg", (HEADER_BYTES + 40) * 8);
    let error = error(&disk);
    assert!(matches!(error, OpenError::Damaged { offset: HEADER_BYTES, lsn: 1, .. }), "{error}");
    assert!(error.to_string().starts_with(
        "log/0000000000000001.seg in the data directory is damaged at byte 64, in record 1: its payload is damaged; \
         move it away"
    ));
}

#[test]
fn damage_in_a_full_segment_is_told() {
    let disk = FaultDisk::new();
    drop(filled(&disk, 20));
    let path = &segments(&disk)[1];
    patch(&disk, path, |bytes| bytes[HEADER_BYTES..].fill(0));
    assert!(matches!(error(&disk), OpenError::Gap { .. }));
}

#[test]
fn a_missing_segment_is_told_by_its_records() {
    let disk = closed(20);
    let all = segments(&disk);
    for missing in &all[..all.len() - 1] {
        let disk = disk.after_kill();
        disk.remove(missing).unwrap();
        assert!(matches!(error(&disk), OpenError::Gap { .. }), "{missing}");
    }
    disk.remove(all.last().unwrap()).unwrap();
    assert!(matches!(error(&disk), OpenError::Closed { closed: 20, .. }));
}

#[test]
fn any_changed_bit_of_a_closed_log_is_told_or_changes_nothing() {
    let disk = closed(12);
    let whole = reopen(&disk.after_kill()).records;
    let mut told = 0;
    for path in disk.paths().into_iter().filter(|path| path != "RESERVE") {
        for bit in 0..disk.contents(&path).unwrap().len() * 8 {
            let damaged = disk.after_kill();
            damaged.flip(&path, bit);
            match try_reopen(&damaged, 0) {
                Ok(opened) => assert_eq!(opened.records, whole, "{path} bit {bit}"),
                Err(_) => told += 1,
            }
        }
    }
    assert!(told > 12 * 132 * 8);
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused() {
    let disk = closed(2);
    let open_as = |identity| {
        let opening = Opening { identity, ..opening() };
        open(disk.after_kill(), &opening, 0, |_| ()).map(|(_, found)| found).unwrap_err()
    };
    assert!(matches!(open_as(Identity { node: [9; 16], ..NODE }), OpenError::ForeignNode { .. }));
    assert!(matches!(open_as(Identity { cluster: [9; 16], ..NODE }), OpenError::ForeignCluster { .. }));
}

#[test]
fn a_segment_of_another_node_is_refused() {
    let (disk, other) = (closed(12), FaultDisk::new());
    let stranger = Opening { identity: Identity { node: [9; 16], ..NODE }, ..opening() };
    open(other.clone(), &stranger, 0, |_| ()).unwrap();
    patch(&disk, "log/0000000000000001.seg", |bytes| {
        bytes[..HEADER_BYTES].copy_from_slice(&other.contents("log/0000000000000001.seg").unwrap()[..HEADER_BYTES]);
    });
    assert!(matches!(error(&disk), OpenError::ForeignNode { .. }));
}

#[test]
fn a_segment_of_another_past_of_the_same_node_is_refused() {
    let (disk, other) = (closed(20), FaultDisk::new());
    let mut log = reopen(&other).log;
    for lsn in 1..=20 {
        put(&mut log, &[&numbered(lsn + 1000)]);
    }
    log.close().unwrap();
    let path = &segments(&disk)[1];
    let bytes = other.contents(path).unwrap();
    patch(&disk, path, |old| *old = bytes);
    assert!(matches!(error(&disk), OpenError::Chain { .. }));
}

#[test]
fn another_format_is_refused_by_its_number() {
    for path in ["IDENTITY", "BOOT", "log/0000000000000001.seg"] {
        let disk = closed(2);
        patch(&disk, path, |bytes| {
            bytes[4] = 2;
            let end = if path.ends_with(".seg") { HEADER_BYTES } else { bytes.len() };
            let checksum = crc32c::crc32c(&bytes[..end - 4]);
            bytes[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
        });
        let error = error(&disk);
        assert!(matches!(error, OpenError::File { reason: Unreadable::Format(2), .. }), "{error}");
        assert!(error.to_string().contains("start the version of specter-server that wrote it"), "{error}");
    }
}

#[test]
fn a_missing_file_is_told_by_its_name() {
    for path in ["IDENTITY", "BOOT"] {
        let disk = closed(2);
        disk.remove(path).unwrap();
        assert!(matches!(error(&disk), OpenError::Missing { path: found } if found == path));
    }
    let disk = closed(2);
    disk.remove(&segments(&disk)[0]).unwrap();
    assert!(matches!(error(&disk), OpenError::Missing { path: "log" }));
}

#[test]
fn an_older_log_or_boot_file_is_noticed() {
    let old = closed(2);
    let new = old.after_kill();
    put(&mut reopen(&new).log, &[b"later"]);
    let mixed = new.after_kill();
    let boot = old.contents("BOOT").unwrap();
    patch(&mixed, "BOOT", |bytes| *bytes = boot);
    assert!(matches!(error(&mixed), OpenError::Boot { boot: 1, log: 2 }));
    let boot = new.contents("BOOT").unwrap();
    patch(&old, "BOOT", |bytes| *bytes = boot);
    assert!(matches!(error(&old), OpenError::Boot { boot: 2, log: 1 }));
}

#[test]
fn a_snapshot_and_a_log_that_do_not_meet_are_refused() {
    let disk = closed(20);
    let behind = try_reopen(&disk, 21).map(|opened| opened.found).unwrap_err();
    assert!(matches!(behind, OpenError::Behind { snapshot: 21, log: 20 }));
    for path in &segments(&disk)[..2] {
        disk.remove(path).unwrap();
    }
    assert!(matches!(try_reopen(&disk, 3), Err(OpenError::Gap { needed: 4, .. })));
}

#[test]
fn records_that_the_snapshot_has_are_left_out_and_their_segments_removed() {
    let disk = closed(20);
    let all = segments(&disk);
    let mut opened = try_reopen(&disk, 15).unwrap();
    assert_eq!(numbers(&opened), [16, 17, 18, 19, 20]);
    assert_eq!((opened.found.records, opened.found.last_lsn), (5, 20));
    assert!(!segments(&disk).contains(&all[0]));
    put(&mut opened.log, &[&numbered(21)]);
    assert_eq!(numbers(&try_reopen(&disk.after_crash(|| false), 15).unwrap()), [16, 17, 18, 19, 20, 21]);
}

#[test]
fn old_segments_whose_removal_was_half_durable_are_no_gap() {
    let disk = closed(30);
    disk.remove(&segments(&disk)[1]).unwrap();
    assert_eq!(numbers(&try_reopen(&disk, 25).unwrap()), [26, 27, 28, 29, 30]);
}

#[test]
fn a_node_that_may_have_forgotten_is_told() {
    let lazy = Opening { settings: Settings { policy: Policy::EverySecond, ..opening().settings }, ..opening() };
    let disk = FaultDisk::new();
    let start = || open(disk.clone(), &lazy, 0, |_| ()).unwrap();
    assert!(!start().1.may_have_forgotten);
    let (log, found) = start();
    assert!(found.may_have_forgotten);
    log.close().unwrap();
    // Closed, and with another policy: what was lost before is still lost.
    assert!(reopen(&disk).found.may_have_forgotten);
    let mut opened = reopen(&disk);
    assert!(opened.found.may_have_forgotten);
    opened.log.begun_anew().unwrap();
    assert!(!reopen(&disk.after_crash(|| false)).found.may_have_forgotten);
}

#[test]
fn foreign_names_in_the_log_are_left_alone() {
    let disk = closed(3);
    for name in ["log/notes.txt", "log/1.seg", "log/next.tmp"] {
        disk::replace(&disk, name, b"x").unwrap();
    }
    assert_eq!(numbers(&reopen(&disk)), [1, 2, 3]);
    assert!(disk.paths().contains(&"log/notes.txt".to_owned()));
}

#[test]
fn every_refusal_says_what_is_wrong_and_what_to_do() {
    let anew = "move it away: the node then starts anew and is filled by its peers";
    let open_as = |disk: &FaultDisk, identity| {
        open(disk.clone(), &Opening { identity, ..opening() }, 0, |_| ()).map(|(_, found)| found).unwrap_err()
    };
    let (node, cluster) = (Identity { node: [9; 16], ..NODE }, Identity { cluster: [9; 16], ..NODE });
    let missing = closed(20);
    missing.remove(&segments(&missing)[1]).unwrap();
    let first = segments(&missing)[0].clone();
    let late = closed(20);
    late.remove(&segments(&late)[0]).unwrap();
    let tail = closed(20);
    tail.remove(segments(&tail).last().unwrap()).unwrap();
    let ownerless = closed(2);
    ownerless.remove("IDENTITY").unwrap();
    let damaged = closed(2);
    damaged.flip("BOOT", 70);
    let behind = try_reopen(&closed(20), 21).map(|opened| opened.found).unwrap_err();
    assert!(missing.paths().contains(&first));
    let cases = [
        (
            open_as(&closed(2), node),
            "IDENTITY belongs to another node of this cluster",
            "give each node a --data-dir of its own",
        ),
        (open_as(&closed(2), cluster), "IDENTITY belongs to another cluster", "or the certificates of that one"),
        (error(&missing), "the records from 8 to 14 are missing in the data directory", anew),
        (error(&late), "the records from 1 to 7 are missing in the data directory", anew),
        (error(&tail), "the log in the data directory ends at record 14, and it was closed at record 20", anew),
        (error(&ownerless), "IDENTITY is missing although the data directory holds records", anew),
        (error(&damaged), "BOOT in the data directory cannot be used: it is damaged", anew),
        (behind, "the log in the data directory ends at record 20, and its snapshot at record 21", anew),
    ];
    for (error, what, way_out) in cases {
        let text = error.to_string();
        assert!(text.starts_with(what) && text.contains(way_out), "{text}");
    }
}
