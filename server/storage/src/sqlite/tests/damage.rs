//! A snapshot of which any bit has changed holds what it held, or says that it is damaged.

use std::panic::catch_unwind;

use super::*;

/// A small closed file, and what it holds.
fn small() -> (Vec<u8>, (u64, Rows)) {
    let mut rig = rig();
    let first =
        [put(1, b"alpha", &[0x5a; 40]), put(1, b"beta", b"2"), Change::Put(Row::Slot { slot: 1, meta: b"meta" })];
    checkpoint(&mut rig.snapshot, 7, &first).unwrap();
    let second = [put(2, b"gamma", &[7; 300]), put(1, b"beta", b"3"), Change::Remove { slot: 1, key: b"none" }];
    checkpoint(&mut rig.snapshot, 9, &second).unwrap();
    let mut rig = rig.reopen();
    let held = rows(&mut rig.snapshot);
    let Rig { folder, snapshot } = rig;
    drop(snapshot);
    (fs::read(folder.path().join("snap.db")).unwrap(), held)
}

/// What a start makes of these bytes.
fn opened(folder: &Path, bytes: &[u8]) -> Result<(u64, Rows), SnapshotError> {
    for name in ["snap.db-wal", "snap.db-shm", "snap.db-journal"] {
        let _ = fs::remove_file(folder.join(name));
    }
    let path = folder.join("snap.db");
    fs::write(&path, bytes).unwrap();
    let mut snapshot = Sqlite::open(&path, &NODE)?;
    let mut found = Rows::new();
    let lsn = snapshot.load(&mut |row| match row {
        Row::Register { slot, key, version, value } => {
            drop(found.insert((slot, key.to_vec()), [version, value].concat()))
        }
        Row::Slot { slot, meta } => drop(found.insert((slot, b"meta".to_vec()), meta.to_vec())),
    })?;
    Ok((lsn, found))
}

#[test]
fn any_changed_bit_of_a_snapshot_is_told_or_changes_nothing() {
    let (whole, held) = small();
    let folder = tempfile::tempdir().unwrap();
    assert!(opened(folder.path(), &whole).unwrap() == held);
    let (mut told, mut same, mut wrong) = (0, 0, Vec::new());
    // Where there are only zeros, a few bits stand for all.
    let used = |at: usize| whole[at.saturating_sub(2)..whole.len().min(at + 3)].iter().any(|byte| *byte != 0);
    // All bits of what a page says of itself, and one of every other byte.
    let chosen =
        |bit: usize| bit / 8 % 4096 < 16 || (used(bit / 8) && bit % 8 == bit / 8 % 8) || bit.is_multiple_of(4093);
    for bit in (0..whole.len() * 8).filter(|bit| chosen(*bit)) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match catch_unwind(|| opened(folder.path(), &bytes)) {
            Ok(Ok(found)) if found == held => same += 1,
            Ok(Ok(found)) => wrong.push(format!("byte {} bit {}: {} rows", bit / 8, bit % 8, found.1.len())),
            Ok(Err(error)) => {
                assert!(error.to_string().contains("snap.db"), "{error}");
                told += 1;
            }
            Err(_) => wrong.push(format!("byte {} bit {}: a panic", bit / 8, bit % 8)),
        }
    }
    println!("{told} told, {same} harmless");
    assert!(wrong.is_empty(), "{} of {}: {:#?}", wrong.len(), told + same, &wrong[..wrong.len().min(20)]);
    assert!(told > 700, "{told}");
}

#[test]
fn bytes_that_nobody_wrote_are_no_snapshot_and_harm_nothing() {
    let (whole, held) = small();
    let folder = tempfile::tempdir().unwrap();
    bolero::check!().with_iterations(100).for_each(|input: &[u8]| {
        // As they are, and in place of a part of a file.
        for start in [0, 100, 4096, 8192] {
            let mut bytes = whole.clone();
            let end = bytes.len().min(start + input.len());
            bytes[start..end].copy_from_slice(&input[..end - start]);
            if let Ok(found) = opened(folder.path(), &bytes) {
                assert!(found == held || found.0 == 0, "at {start}");
            }
        }
        let _ = opened(folder.path(), input);
    });
}
