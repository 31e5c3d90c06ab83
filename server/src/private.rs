//! Files and folders that only this user may read: keys, the store, the client's configuration of `dev`.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Makes a folder and those above it, mode 0700. One that exists stays as it is.
///
/// # Errors
/// What the system says.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for reading and writing, and makes it with mode 0600 if there is none.
///
/// # Errors
/// What the system says.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes a new file with mode 0600 and makes it durable. The folder's entry is made durable by [`sync_folder`].
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if there is one, and what the system says.
pub fn create_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// What the system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The permission bits of a file that let others than its user read it, or 0.
///
/// # Errors
/// What the system says.
pub fn exposure(path: &Path) -> io::Result<u32> {
    Ok(path.metadata()?.mode() & 0o077)
}
