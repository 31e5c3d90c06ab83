mod calls;
mod damage;

use super::*;
use crate::{snapshot::checkpoint, tests::NODE};
use std::{collections::BTreeMap, os::unix::fs::MetadataExt};
use tempfile::TempDir;

type Rows = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

struct Rig {
    folder: TempDir,
    snapshot: Sqlite,
}

fn rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = Sqlite::open(&folder.path().join("snap.db"), &NODE).unwrap();
    Rig { folder, snapshot }
}

impl Rig {
    fn path(&self) -> PathBuf {
        self.folder.path().join("snap.db")
    }

    fn reopen(self) -> Self {
        drop(self.snapshot);
        let snapshot = Sqlite::open(&self.folder.path().join("snap.db"), &NODE).unwrap();
        Self { snapshot, ..self }
    }
}

fn rows(snapshot: &mut Sqlite) -> (u64, Rows) {
    let mut rows = Rows::new();
    let lsn = snapshot.load(&mut |row| match row {
        Row::Register { slot, key, version, value } => {
            rows.insert((slot, key.to_vec()), [version, value].concat());
        }
        Row::Slot { slot, meta } => {
            rows.insert((slot, b"meta".to_vec()), meta.to_vec());
        }
    });
    (lsn.unwrap(), rows)
}

fn put<'a>(slot: u16, key: &'a [u8], value: &'a [u8]) -> Change<'a> {
    Change::Put(Row::Register { slot, key, version: b"v", value })
}

#[test]
fn a_checkpoint_changes_only_what_it_names_and_survives_a_restart() {
    let mut rig = rig();
    assert_eq!(rows(&mut rig.snapshot), (0, Rows::new()));
    let first =
        [put(1, b"a", b"1"), put(1, b"b", b"2"), put(2, b"a", b"3"), Change::Put(Row::Slot { slot: 2, meta: b"m" })];
    assert_eq!(checkpoint(&mut rig.snapshot, 9, &first).unwrap().lsn(), 9);
    let second =
        [put(1, b"a", b"4"), Change::Remove { slot: 1, key: b"b" }, Change::Drop { slot: 2 }, put(2, b"c", b"5")];
    checkpoint(&mut rig.snapshot, 12, &second).unwrap();
    let mut rig = rig.reopen();
    let expected = [((1, b"a".to_vec()), b"v4".to_vec()), ((2, b"c".to_vec()), b"v5".to_vec())];
    assert_eq!(rows(&mut rig.snapshot), (12, Rows::from(expected)));
}

#[test]
fn its_files_are_for_its_user_only_and_the_side_file_is_empty_after_a_checkpoint() {
    let mut rig = rig();
    checkpoint(&mut rig.snapshot, 1, &[put(1, b"a", &[1; 100_000])]).unwrap();
    for name in ["snap.db", "snap.db-wal", "snap.db-shm"] {
        assert_eq!(rig.folder.path().join(name).metadata().unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(rig.folder.path().join("snap.db-wal").metadata().unwrap().len(), 0);
}

#[test]
fn removed_rows_give_their_room_back() {
    let mut rig = rig();
    let value = [1; 50_000];
    let keys: Vec<_> = (0..100_u8).map(|key| [key]).collect();
    let all: Vec<_> = keys.iter().map(|key| put(1, key, &value)).collect();
    checkpoint(&mut rig.snapshot, 1, &all).unwrap();
    let long = rig.path().metadata().unwrap().len();
    checkpoint(&mut rig.snapshot, 2, &[Change::Drop { slot: 1 }]).unwrap();
    assert!(rig.path().metadata().unwrap().len() < long / 10);
}

#[test]
fn a_crash_at_any_byte_of_a_commit_leaves_the_old_rows_or_the_new_ones() {
    let mut rig = rig();
    rig.snapshot.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    checkpoint(&mut rig.snapshot, 5, &[put(1, b"a", b"old"), put(1, b"b", b"old")]).unwrap();
    let before = rows(&mut rig.snapshot);
    let base = fs::read(rig.path()).unwrap();
    let changes = [put(1, b"a", b"new"), Change::Remove { slot: 1, key: b"b" }, put(7, b"c", &[3; 9000])];
    // The side file as it is between the commit and its move into the main file.
    let log = {
        let other = rig.folder.path().join("copy.db");
        fs::write(&other, &base).unwrap();
        let mut copy = Sqlite::open(&other, &NODE).unwrap();
        copy.connection.execute_batch("BEGIN").unwrap();
        copy.connection.execute_batch("ROLLBACK").unwrap();
        let reader = Connection::open(&other).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
        // A reader keeps the side file from being emptied.
        let _ = copy.commit(8, &changes);
        fs::read(rig.folder.path().join("copy.db-wal")).unwrap()
    };
    checkpoint(&mut rig.snapshot, 8, &changes).unwrap();
    let after = rows(&mut rig.snapshot);
    assert!(log.len() > 9000);
    let image = tempfile::tempdir().unwrap();
    let path = image.path().join("snap.db");
    let (mut old, mut new) = (0, 0);
    let open = |bytes: &[u8]| {
        for name in ["snap.db-shm", "snap.db"] {
            let _ = fs::remove_file(image.path().join(name));
        }
        fs::write(&path, &base).unwrap();
        fs::write(image.path().join("snap.db-wal"), bytes).unwrap();
        let mut snapshot = Sqlite::open(&path, &NODE).unwrap();
        snapshot.check().unwrap();
        rows(&mut snapshot)
    };
    for cut in (0..=log.len()).step_by(256).chain([log.len() - 1, log.len()]) {
        let mut torn = log.clone();
        torn.truncate(cut);
        let mut holed = log.clone();
        holed[cut.min(log.len() - 512)..][..512].fill(0);
        for bytes in [torn, holed] {
            match open(&bytes) {
                found if found == before => old += 1,
                found if found == after => new += 1,
                found => panic!("cut at {cut}: {found:?}"),
            }
        }
    }
    assert!(old > 50 && new > 0, "{old} {new}");
}

#[test]
fn a_changed_row_is_noticed() {
    let mut rig = rig();
    checkpoint(&mut rig.snapshot, 1, &[put(1, b"a", b"1"), Change::Put(Row::Slot { slot: 3, meta: b"m" })]).unwrap();
    for (change, slot) in [("UPDATE reg SET value = x'39'", 1), ("UPDATE slot SET meta = x'39'", 3)] {
        rig.snapshot.connection.execute_batch(change).unwrap();
        let found = rig.snapshot.load(&mut |_| ());
        assert!(matches!(found, Err(SnapshotError::Row { slot: found, .. }) if found == slot), "{found:?}");
    }
    rig.snapshot.connection.execute_batch("UPDATE meta SET lsn = 2").unwrap();
    assert!(matches!(rig.snapshot.lsn(), Err(SnapshotError::Unreadable { .. })));
}

#[test]
fn a_file_of_another_node_or_program_is_refused() {
    let rig = rig();
    let other = Identity { node: [9; 16], ..NODE };
    assert!(matches!(Sqlite::open(&rig.path(), &other), Err(SnapshotError::Foreign { .. })));
    rig.snapshot.connection.execute_batch("PRAGMA application_id = 1").unwrap();
    assert!(matches!(Sqlite::open(&rig.path(), &NODE), Err(SnapshotError::Foreign { .. })));
    let text = rig.folder.path().join("text");
    fs::write(&text, "not a database at all, only some text that is long enough".repeat(20)).unwrap();
    assert!(matches!(Sqlite::open(&text, &NODE), Err(SnapshotError::Foreign { .. })));
}

#[test]
fn another_format_is_refused_by_its_number() {
    let rig = rig();
    rig.snapshot.connection.execute_batch("PRAGMA user_version = 2").unwrap();
    let refused = Sqlite::open(&rig.path(), &NODE).unwrap_err();
    assert!(matches!(refused, SnapshotError::Unreadable { reason: Unreadable::Format(2), .. }), "{refused}");
}

#[test]
fn a_full_disk_leaves_the_old_rows() {
    let mut rig = rig();
    checkpoint(&mut rig.snapshot, 1, &[put(1, b"a", b"1")]).unwrap();
    rig.snapshot.connection.execute_batch("PRAGMA max_page_count = 10").unwrap();
    let refused = checkpoint(&mut rig.snapshot, 2, &[put(1, b"a", b"2"), put(1, b"b", &[0; 100_000])]).unwrap_err();
    assert!(matches!(refused, SnapshotError::Full(_)), "{refused:?}");
    rig.snapshot.connection.execute_batch("PRAGMA max_page_count = 1000000").unwrap();
    assert_eq!(rows(&mut rig.snapshot), (1, Rows::from([((1, b"a".to_vec()), b"v1".to_vec())])));
    checkpoint(&mut rig.snapshot, 2, &[put(1, b"a", b"2")]).unwrap();
}
