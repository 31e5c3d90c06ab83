//! The data directory: made for this user only, and held by one process at a time.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::private;

/// A data directory that this process holds. The lock ends with the value, and with the process however it ends.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the directory if needed and takes its lock.
    ///
    /// # Errors
    /// [`FolderError`]; nothing was changed in a directory held by somebody else.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        private::make_folder(path).map_err(unusable)?;
        let lock = private::open_or_create(&path.join("LOCK")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Held { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
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

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_new_directory_is_for_its_user_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        drop(Folder::open(&path).unwrap());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(path.join("LOCK").metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_through_a_file_is_told_with_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("data")).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
