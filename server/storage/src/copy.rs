//! A backup of a directory, of a running node too, and the way back.

use std::{
    fs, io,
    path::{self, Path, PathBuf},
};

use thiserror::Error;

use crate::{
    disk::{self, Disk, Folder, FolderError},
    identity::{BootFile, IDENTITY},
    inspect::{self, Report},
    recover::OpenError,
    segment,
    snapshot::{Snapshot, SnapshotError},
    sqlite::Sqlite,
};

/// How often a copy is begun anew because the node went on in between.
const TRIES: u32 = 5;

const SNAPSHOT: &str = "snap.db";

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum CopyError {
    /// Something is there already.
    #[error("{} is not empty; give a directory that does not exist yet", path.display())]
    NotEmpty {
        /// Where the copy was to go.
        path: PathBuf,
    },
    /// Nothing to copy.
    #[error("{} holds no data of a node", path.display())]
    Nothing {
        /// What was to be copied.
        path: PathBuf,
    },
    /// The new directory cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log is damaged, or the node wrote so much that each copy was behind.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The snapshot cannot be copied.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The system refuses.
    #[error("{} cannot be copied; check the disk and the rights of this user", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Copies a data directory into a new one that a node can start on, and reads the copy to be sure.
///
/// The node may run meanwhile. One that starts on the copy may have promised more than the copy holds, so it is told that it
/// may have forgotten.
///
/// # Errors
/// [`CopyError`]; nothing is there then.
pub fn copy(from: &Path, to: &Path) -> Result<Report, CopyError> {
    as_a_whole(to, |aside| copy_into(from, aside))
}

/// Makes a directory that is there only once it is whole: whatever ends the program in between, the same can be asked again.
///
/// # Errors
/// [`CopyError`] if something is there already or the directory cannot be made; else what `make` says.
pub fn as_a_whole<T, E: From<CopyError>>(to: &Path, make: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
    if to.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(CopyError::NotEmpty { path: to.to_owned() }.into());
    }
    let failed = |source| CopyError::Disk { path: to.to_owned(), source };
    let to = path::absolute(to).map_err(failed)?;
    let name = to.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let parent = to.parent().unwrap_or(&to);
    let aside = parent.join(format!(".{}.half-made", name.display()));
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
        Ok(()) | Err(_) => {}
    }
    let made = make(&aside)?;
    fs::rename(&aside, &to).and_then(|()| fs::File::open(parent)?.sync_all()).map_err(failed)?;
    Ok(made)
}

fn copy_into(from: &Path, to: &Path) -> Result<Report, CopyError> {
    if !from.join(IDENTITY).exists() {
        return Err(CopyError::Nothing { path: from.to_owned() });
    }
    let source = Folder::look(from);
    let target = Folder::open(to)?;
    let mut tries = 1;
    loop {
        // A checkpoint or a start in between can leave a copy whose parts do not meet.
        match try_copy(&source, &target) {
            Err(CopyError::Log(_)) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

fn try_copy(source: &Folder, target: &Folder) -> Result<Report, CopyError> {
    let failed = |path: &str| {
        let path = source.path().join(path);
        move |source| CopyError::Disk { path, source }
    };
    // The snapshot first: the log that is copied later reaches at least as far.
    let lsn = if Sqlite::copy(&source.path().join(SNAPSHOT), &target.path().join(SNAPSHOT))? {
        snapshot_lsn(source, target)?
    } else {
        0
    };
    let identity = fs::read(source.path().join(IDENTITY)).map_err(failed(IDENTITY))?;
    disk::replace(target, IDENTITY, &identity).map_err(failed(IDENTITY))?;
    match BootFile::read(source).map_err(failed("BOOT"))? {
        Some(Ok(left)) => {
            let copy = BootFile { closed_at: None, may_have_forgotten: true, ..left };
            copy.write(target).map_err(failed("BOOT"))?;
        }
        Some(Err(reason)) => return Err(OpenError::File { path: "BOOT".to_owned(), reason }.into()),
        None => {}
    }
    target.make_folder(segment::FOLDER).and_then(|()| target.sync_folder("")).map_err(failed(segment::FOLDER))?;
    let is_segment = |name: &String| segment::first_lsn(name).is_some();
    for name in target.list(segment::FOLDER).map_err(failed(segment::FOLDER))?.iter().filter(|name| is_segment(name)) {
        let path = format!("{}/{name}", segment::FOLDER);
        target.remove(&path).map_err(failed(&path))?;
    }
    for name in source.list(segment::FOLDER).map_err(failed(segment::FOLDER))?.iter().filter(|name| is_segment(name)) {
        let path = format!("{}/{name}", segment::FOLDER);
        match fs::read(source.path().join(&path)) {
            Ok(bytes) => disk::replace(target, &path, &bytes).map_err(failed(&path))?,
            // A checkpoint has it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    let report = inspect::read(target, lsn, |_| ())?;
    report.ok_or_else(|| CopyError::Nothing { path: source.path().to_owned() })
}

/// Reads the copied snapshot as a whole.
fn snapshot_lsn(source: &Folder, target: &Folder) -> Result<u64, CopyError> {
    let owner = match crate::identity::Identity::read(source) {
        Ok(Some(Ok(owner))) => owner,
        Ok(Some(Err(reason))) => return Err(OpenError::File { path: IDENTITY.to_owned(), reason }.into()),
        Ok(None) => return Err(CopyError::Nothing { path: source.path().to_owned() }),
        Err(error) => return Err(CopyError::Disk { path: source.path().join(IDENTITY), source: error }),
    };
    let mut snapshot = Sqlite::open(&target.path().join(SNAPSHOT), &owner)?;
    Ok(snapshot.load(&mut |_| ())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::{Log, Need},
        record::Entry,
        recover::open,
        snapshot::{Change, Row, checkpoint},
        tests::{NODE, opening},
        writer::{OwnedEntry, Writer},
    };
    use std::{os::unix::fs::MetadataExt, sync::mpsc::channel};

    fn append(log: &mut Log<Folder>, count: u8) {
        for number in 0..count {
            log.append(&[Entry { kind: 1, slot: 1, payload: &[number; 100] }], Need::Ordinary).unwrap();
        }
        log.sync().unwrap();
    }

    #[test]
    fn a_copy_is_a_directory_to_start_on_that_says_that_it_is_one() {
        let parent = tempfile::tempdir().unwrap();
        let (from, to) = (parent.path().join("data"), parent.path().join("backup"));
        let (mut log, _) = open(Folder::open(&from).unwrap(), &opening(), 0, |_| ()).unwrap();
        let mut snapshot = Sqlite::open(&from.join(SNAPSHOT), &NODE).unwrap();
        append(&mut log, 20);
        let row = Row::Slot { slot: 1, meta: b"meta" };
        let saved = checkpoint(&mut snapshot, 15, &[Change::Put(row)]).unwrap();
        log.forget(saved).unwrap();
        append(&mut log, 20);
        let report = copy(&from, &to).unwrap();
        assert_eq!(
            (report.snapshot_lsn, report.last_lsn, report.records, report.may_have_forgotten),
            (15, 40, 25, true)
        );
        for name in [SNAPSHOT, IDENTITY, "BOOT"] {
            assert_eq!(to.join(name).metadata().unwrap().mode() & 0o777, 0o600, "{name}");
        }
        let mut rows = 0;
        let lsn = Sqlite::open(&to.join(SNAPSHOT), &NODE).unwrap().load(&mut |_| rows += 1).unwrap();
        let (_, found) = open(Folder::open(&to).unwrap(), &opening(), lsn, |_| ()).unwrap();
        assert_eq!((rows, found.last_lsn, found.may_have_forgotten), (1, 40, true));
    }

    #[test]
    fn a_node_that_goes_on_is_copied_at_some_moment() {
        let parent = tempfile::tempdir().unwrap();
        let from = parent.path().join("data");
        let (log, _) = open(Folder::open(&from).unwrap(), &opening(), 0, |_| ()).unwrap();
        let mut snapshot = Sqlite::open(&from.join(SNAPSHOT), &NODE).unwrap();
        let writer = Writer::start(log, |_| ()).unwrap();
        for round in 0..10 {
            let (sender, answers) = channel();
            for _ in 0..50 {
                let (sender, entry) = (sender.clone(), OwnedEntry { kind: 1, slot: 1, payload: vec![1; 100] });
                writer
                    .submit(vec![entry], Need::Ordinary, move |result| sender.send(result.unwrap()).unwrap())
                    .unwrap();
            }
            let first = answers.recv().unwrap();
            let report = copy(&from, &parent.path().join(format!("copy-{round}"))).unwrap();
            assert!(report.last_lsn >= first, "{report}");
            let last = answers.iter().take(49).last().unwrap();
            writer.forget(checkpoint(&mut snapshot, last, &[]).unwrap());
        }
    }

    #[test]
    fn a_copy_that_was_broken_off_is_begun_anew() {
        let parent = tempfile::tempdir().unwrap();
        let to = parent.path().join("made");
        let broken: Result<(), _> = as_a_whole(&to, |aside| {
            fs::create_dir(aside).unwrap();
            fs::write(aside.join("half"), "x").unwrap();
            Err(CopyError::Nothing { path: aside.to_owned() })
        });
        broken.unwrap_err();
        assert!(!to.exists(), "what is not whole is not there");
        as_a_whole(&to, |aside| {
            fs::create_dir(aside).unwrap();
            Ok::<_, CopyError>(())
        })
        .unwrap();
        assert_eq!(to.read_dir().unwrap().count(), 0);
        assert_eq!(parent.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_made_of_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let (empty, full) = (parent.path().join("empty"), parent.path().join("full"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("file"), "x").unwrap();
        assert!(matches!(copy(&empty, &full), Err(CopyError::NotEmpty { .. })));
        assert!(matches!(copy(&empty, &parent.path().join("new")), Err(CopyError::Nothing { .. })));
        assert!(!parent.path().join("new").exists());
    }
}
