use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::*;

impl Snapshot {
    /// Makes the file as if the disk held only so many pages; returns how many it may have otherwise.
    pub(crate) fn limit_pages(&self, pages: u32) -> i64 {
        let before = self.connection.pragma_query_value(None, "max_page_count", |row| row.get(0)).unwrap();
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0)).unwrap();
        before
    }
}

/// Makes every later commit to an open store's file fail.
pub(crate) fn sabotage(data_dir: &Path) {
    Connection::open(data_dir.join("snap.db")).unwrap().execute_batch("DROP TABLE meta").unwrap();
}

/// Locks an open store's file as a program that writes to it does, until the value is dropped.
pub(crate) fn lock(data_dir: &Path) -> impl Drop + use<> {
    let connection = Connection::open(data_dir.join("snap.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

fn open(folder: &TempDir) -> Result<Snapshot, OpenError> {
    Snapshot::open(Folder::open(folder.path()).unwrap())
}

/// Runs SQL on a closed store's file.
fn tamper(folder: &TempDir, sql: &str) {
    Connection::open(folder.path().join("snap.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_was_committed_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut snapshot = open(&folder).unwrap();
    let (key, child, head) = (b"k".as_slice(), b"c".as_slice(), b"h".as_slice());
    snapshot.commit(7, [Change::Head { key, head }, Change::Child { key, child }]).unwrap();
    snapshot.commit(8, [Change::NoHead { key: b"other" }, Change::NoChild { key, child: b"x" }]).unwrap();
    drop(snapshot);
    let (mut heads, mut children) = (Vec::new(), Vec::new());
    let sequence = open(&folder).unwrap().load(|k, h| heads.push((k, h)), |k, c| children.push((k, c))).unwrap();
    assert_eq!(sequence, 8);
    assert_eq!(heads, [(key.to_vec(), head.to_vec())]);
    assert_eq!(children, [(key.to_vec(), child.to_vec())]);
}

#[test]
fn every_commit_is_flushed_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(&folder).unwrap();
    let text = |name| snapshot.connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("journal_mode"), "wal");
    let synchronous: i64 = snapshot.connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[test]
fn all_files_are_for_their_user_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut snapshot = open(&folder).unwrap();
    snapshot.commit(1, [Change::Head { key: b"k", head: b"h" }]).unwrap();
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn a_newer_format_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder).unwrap());
    tamper(&folder, "PRAGMA user_version = 2");
    let error = open(&folder).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }));
    assert!(error.to_string().contains("start the version that wrote it"), "{error}");
}

#[test]
fn a_file_of_another_program_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    tamper(&folder, "CREATE TABLE theirs (x)");
    let before = std::fs::read(folder.path().join("snap.db")).unwrap();
    assert!(matches!(open(&folder).unwrap_err(), OpenError::Foreign { .. }));
    assert_eq!(std::fs::read(folder.path().join("snap.db")).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("snap.db"), "not a database, but long enough to look at".repeat(100)).unwrap();
    assert!(matches!(open(&folder).unwrap_err(), OpenError::Damaged { .. }));
}
