//! Unix.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

/// Creates a file that only its owner can read. What a run that was killed left there is removed first.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a new file the owner of the one that it replaces: an administrator may run the client on a user's file.
pub(crate) fn keep_owner(old: &Path, new: &File) {
    // A sandbox may end a program for the mere call.
    if let (Ok(old), Ok(made)) = (fs::metadata(old), new.metadata())
        && (old.uid(), old.gid()) != (made.uid(), made.gid())
        && let Err(error) = fchown(new, Some(old.uid()), Some(old.gid()))
    {
        tracing::debug!(%error, "the configuration changes its owner");
    }
}

/// Makes a rename in the file's folder durable.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
