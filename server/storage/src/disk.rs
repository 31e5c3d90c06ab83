//! What the store asks of a disk, so that tests can put one in its place that fails.
//!
//! [`Folder`] is a directory of the system. Paths are relative to it, with slashes, and never come from the network.

mod folder;

use std::io;

pub use folder::{Folder, FolderError};

/// A directory. What was written, made, renamed or removed is durable only after the sync that concerns it.
pub trait Disk {
    /// An open file of it.
    type File: File;

    /// Makes a folder; one that exists is left as it is.
    ///
    /// # Errors
    /// What the system says.
    fn make_folder(&self, path: &str) -> io::Result<()>;

    /// The names in a folder, sorted. The empty path is the directory itself.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] without such a folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Makes an empty file, or empties the one that is there.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &str) -> io::Result<Self::File>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] without such a file.
    fn open(&self, path: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in one step. A file that had that name is gone.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] without such a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, path: &str) -> io::Result<()>;
}

/// An open file.
pub trait File {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Reads from a place; 0 at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes at a place and tells how much of it was written.
    ///
    /// # Errors
    /// What the system says. Part of it may be written.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts or extends it.
    ///
    /// # Errors
    /// What the system says.
    fn set_size(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes its contents durable. After an error nobody knows what is: the system may have given up on the contents, so
    /// that a second sync succeeds without them.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes`.
pub(crate) fn write_all(file: &mut impl File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(at, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                at += u64::try_from(written).expect("a length fits 64 bits");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a whole file, unless it is longer than `limit_bytes`.
pub(crate) fn read_all(file: &impl File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let size_bytes = file.size_bytes()?;
    if size_bytes > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size_bytes} bytes, more than it ever has")));
    }
    let mut bytes = vec![0; usize::try_from(size_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let mut read = 0;
    while read < bytes.len() {
        let at = u64::try_from(read).expect("a length fits 64 bits");
        match file.read_at(at, &mut bytes[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes zeros from a place up to another, so that a later write there needs no new space and no new metadata.
pub(crate) fn write_zeros(file: &mut impl File, mut from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; 256 << 10];
    while from < to {
        let size = usize::try_from(to - from).unwrap_or(usize::MAX).min(zeros.len());
        write_all(file, from, &zeros[..size])?;
        from += u64::try_from(size).expect("a length fits 64 bits");
    }
    Ok(())
}

/// Puts a small file in place, durably and in one step: after a crash it is there as a whole or as it was before.
pub(crate) fn replace(disk: &impl Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{path}.tmp");
    let mut file = disk.create(&new)?;
    write_all(&mut file, 0, bytes)?;
    file.sync()?;
    disk.rename(&new, path)?;
    disk.sync_folder(folder_of(path))
}

/// Removes a file if it is there, and tells whether it was.
pub(crate) fn remove_if_there(disk: &impl Disk, path: &str) -> io::Result<bool> {
    match disk.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error says that there is no room: nothing is broken, and it may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The folder that a path is in.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
