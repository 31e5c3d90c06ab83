//! A directory of the system: for this user only, and held by one process at a time.

use std::{
    fs::{self, DirBuilder, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Disk, File};

/// A directory that this process holds. The lock ends with the value, and with the process however it ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: Option<fs::File>,
}

impl Folder {
    /// Makes the directory if needed (0700) and takes its lock.
    ///
    /// # Errors
    /// [`FolderError`]; nothing was changed in a directory held by somebody else.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        make_private(path, true).map_err(unusable)?;
        let lock = private().create(true).truncate(false).open(path.join("LOCK")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Held { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Looks at a directory that another process may hold. Only for reading.
    pub fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Another process has it open.
    #[error(
        "the data directory {} is in use by another specter-server; stop that one, or give this one another --data-dir",
        path.display()
    )]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made or written.
    #[error(
        "the data directory {} cannot be used; make it writable for this user, or give another --data-dir",
        path.display()
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Disk for Folder {
    type File = fs::File;

    fn make_folder(&self, path: &str) -> io::Result<()> {
        match make_private(&self.path.join(path), false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.path.join(folder).read_dir()? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<fs::File> {
        private().create(true).truncate(true).open(self.path.join(path))
    }

    fn open(&self, path: &str) -> io::Result<fs::File> {
        private().open(self.path.join(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(path))
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        fs::File::open(self.path.join(path))?.sync_all()
    }
}

impl File for fs::File {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn set_size(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Covers the length too, and spares the times of access.
        self.sync_data()
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn make_private(path: &Path, with_parents: bool) -> io::Result<()> {
    DirBuilder::new().recursive(with_parents).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{read_all, replace, write_all, write_zeros};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = Folder::open(&path).unwrap();
        assert!(matches!(Folder::open(&path), Err(FolderError::Held { .. })));
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn everything_in_it_is_for_its_user_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        folder.make_folder("log").unwrap();
        folder.make_folder("log").unwrap();
        replace(&folder, "log/file", b"text").unwrap();
        for (name, mode) in [("", 0o700), ("log", 0o700), ("LOCK", 0o600), ("log/file", 0o600)] {
            assert_eq!(path.join(name).metadata().unwrap().mode() & 0o777, mode, "{name}");
        }
    }

    #[test]
    fn what_was_written_is_read_up_to_the_limit() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        let mut file = folder.create("file").unwrap();
        write_zeros(&mut file, 1, 300_000).unwrap();
        write_all(&mut file, 299_998, b"end").unwrap();
        let bytes = read_all(&file, 300_001).unwrap();
        assert_eq!((bytes.len(), &bytes[299_997..]), (300_001, &b"\0end"[..]));
        assert_eq!(read_all(&file, 300_000).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(folder.list("").unwrap(), ["LOCK", "file"]);
    }
}
