//! Systems where a file inherits its access rights from its folder.

use std::{fs::File, io, path::Path};

/// Creates a file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// Owners are inherited.
pub(crate) fn keep_owner(_old: &Path, _new: &File) {}

/// A rename is durable by itself.
pub(crate) fn sync_folder(_file: &Path) -> io::Result<()> {
    Ok(())
}
