//! The configuration file as a thing to write to. Called by `tunnel` when a node gave something.
//!
//! A new text replaces the old one whole or not at all: temporary file in the same folder, fsync, rename, fsync of the
//! folder.

use crate::{
    config::{ConfigError, Source},
    rewrite::{RewriteError, Values, rewrite},
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

mod permissions;
#[cfg(test)]
mod tests;

/// Where what a node gives is kept.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// In this file.
    File(PathBuf),
    /// Nowhere: the identity lives as long as the program.
    Memory,
}

impl Store {
    /// Checks that [`Store::save`] can work, without changing anything.
    ///
    /// # Errors
    /// Must end the program before a name is asked for that could then not be kept.
    pub(crate) fn check(&self) -> Result<(), SaveError> {
        let Self::File(path) = self else {
            return Ok(());
        };
        let real = real_path(path)?;
        let check = || {
            // An administrator's write succeeds on a read-only file, and would still be against the user's wish.
            if fs::metadata(&real)?.permissions().readonly() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            OpenOptions::new().append(true).open(&real)?;
            let temporary = temporary_path(&real);
            permissions::create(&temporary)?;
            fs::remove_file(&temporary)
        };
        check().map_err(|source| SaveError::Write { path: path.clone(), source })
    }

    /// Writes values into the file as it is at this moment.
    ///
    /// # Errors
    /// The file is as it was.
    pub(crate) fn save(&self, values: &Values) -> Result<(), SaveError> {
        let Self::File(path) = self else {
            return Ok(());
        };
        let text = Source::read(path)?;
        let new = rewrite(&text, values).map_err(|source| SaveError::Rewrite { path: path.clone(), source })?;
        if new == text {
            return Ok(());
        }
        let real = real_path(path)?;
        replace(&real, new.as_bytes()).map_err(|source| SaveError::Write { path: path.clone(), source })
    }
}

/// Why values are not in the file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file cannot be read any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file's text cannot take the values.
    #[error("the configuration {} cannot be completed", path.display())]
    Rewrite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RewriteError,
    },
    /// The file or its folder cannot be written.
    #[error(
        "the configuration {} cannot be written, and the client has to keep its key, certificate and hostnames there: make the file and its folder writable for this user",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The file behind symbolic links: the link stays a link.
fn real_path(path: &Path) -> Result<PathBuf, SaveError> {
    fs::canonicalize(path).map_err(|source| SaveError::Write { path: path.to_owned(), source })
}

/// Replaces a file's text. The temporary file is removed if anything fails.
fn replace(real: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(real);
    let write = || {
        let mut file = permissions::create(&temporary)?;
        permissions::keep_owner(real, &file);
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, real)
    };
    let outcome = write();
    if outcome.is_err() {
        // It may not exist, and the first error is the one to tell.
        fs::remove_file(&temporary).ok();
    }
    outcome?;
    permissions::sync_folder(real)
}

/// In the same folder, so that a rename suffices; with the process's number, so that two clients do not meet.
fn temporary_path(real: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(real.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    real.with_file_name(name)
}
