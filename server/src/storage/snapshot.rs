//! The SQLite file that holds a node's registers. The store thread owns it; this is the one file that names rusqlite.
//!
//! WAL with `synchronous=FULL`: a commit is on disk when it returns.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, params};

use super::folder::Folder;
use crate::private;

/// The open file.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    /// Held as long as the file is open; dropped after the connection.
    _folder: Folder,
}

/// One row to write or remove.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Sets what a key holds beside its children.
    Head {
        /// The key.
        key: &'a [u8],
        /// Its encoded head.
        head: &'a [u8],
    },
    /// Removes it.
    NoHead {
        /// The key.
        key: &'a [u8],
    },
    /// Adds a child to a key's set.
    Child {
        /// The key.
        key: &'a [u8],
        /// The child.
        child: &'a [u8],
    },
    /// Removes a child.
    NoChild {
        /// The key.
        key: &'a [u8],
        /// The child.
        child: &'a [u8],
    },
}

impl Snapshot {
    /// Opens the file in a data directory, and makes it if there is none.
    ///
    /// # Errors
    /// [`OpenError`]; the file is left as it was.
    pub fn open(folder: Folder) -> Result<Self, OpenError> {
        let path = folder.path().join("snap.db");
        let unusable = |source| OpenError::Unusable { path: path.clone(), source };
        // SQLite gives its side files the mode of the main file, so making that one private is enough.
        drop(private::open_or_create(&path).map_err(unusable)?);
        private::sync_folder(folder.path()).map_err(unusable)?;
        let damaged = |source| OpenError::Damaged { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(damaged)?;
        check_format(&connection, &path)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(damaged)?;
        connection.execute_batch(SCHEMA).map_err(damaged)?;
        Ok(Self { connection, _folder: folder })
    }

    /// Reads everything: first all heads as `(key, head)`, then all children as `(key, child)`.
    ///
    /// # Errors
    /// The first row that cannot be read.
    pub fn load(
        &self,
        mut head: impl FnMut(Vec<u8>, Vec<u8>),
        mut child: impl FnMut(Vec<u8>, Vec<u8>),
    ) -> Result<u64, LoadError> {
        let mut statement = self.connection.prepare("SELECT key, head FROM register")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            head(row.get(0)?, row.get(1)?);
        }
        let mut statement = self.connection.prepare("SELECT key, child FROM child")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            child(row.get(0)?, row.get(1)?);
        }
        let sequence: i64 = self.connection.query_row("SELECT sequence FROM meta", [], |row| row.get(0))?;
        Ok(sequence.cast_unsigned())
    }

    /// Writes all changes and the sequence they reach, or none of them. They are on disk when this returns.
    ///
    /// # Errors
    /// [`CommitError`] tells whether anything may have been written.
    pub fn commit<'a>(
        &mut self,
        sequence: u64,
        changes: impl IntoIterator<Item = Change<'a>>,
    ) -> Result<(), CommitError> {
        let transaction = self.connection.transaction()?;
        {
            let mut head = transaction.prepare("INSERT OR REPLACE INTO register (key, head) VALUES (?1, ?2)")?;
            let mut no_head = transaction.prepare("DELETE FROM register WHERE key = ?1")?;
            let mut child = transaction.prepare("INSERT OR IGNORE INTO child (key, child) VALUES (?1, ?2)")?;
            let mut no_child = transaction.prepare("DELETE FROM child WHERE key = ?1 AND child = ?2")?;
            for change in changes {
                match change {
                    Change::Head { key, head: bytes } => head.execute(params![key, bytes])?,
                    Change::NoHead { key } => no_head.execute(params![key])?,
                    Change::Child { key, child: bytes } => child.execute(params![key, bytes])?,
                    Change::NoChild { key, child: bytes } => no_child.execute(params![key, bytes])?,
                };
            }
            transaction.prepare("UPDATE meta SET sequence = ?1")?.execute(params![sequence.cast_signed()])?;
        }
        Ok(transaction.commit()?)
    }
}

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("the store {} cannot be opened; make it readable and writable for this user", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// SQLite refuses it.
    #[error("the store {} cannot be read; restore the data directory from a backup, or move it away to start anew",
        path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Another program's file.
    #[error("{} is an SQLite file of another program; give specter-server a --data-dir of its own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Made by a later version of this program.
    #[error(
        "the store {} has format {found}, and this specter-server knows formats up to {FORMAT}; start the version that \
         wrote it, or a later one", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i32,
    },
}

/// Why the file cannot be read after it was opened.
#[derive(Debug, thiserror::Error)]
#[error("the store cannot be read")]
pub struct LoadError(#[from] rusqlite::Error);

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full. Nothing was written; a later commit may succeed.
    #[error("the disk is full")]
    Full(#[source] rusqlite::Error),
    /// Another program has locked the file. Nothing was written; a later commit may succeed.
    #[error("another program holds the store's file")]
    Busy(#[source] rusqlite::Error),
    /// Anything else. Whether the changes are on disk is not known before the file is opened anew.
    #[error("the store's file cannot be written")]
    Failed(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(error),
            // Told before the first row is written: the transaction is taken back as a whole.
            Some(ErrorCode::DatabaseBusy) => Self::Busy(error),
            Some(_) | None => Self::Failed(error),
        }
    }
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let damaged = |source| OpenError::Damaged { path: path.to_owned(), source };
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(damaged);
    let (application, format) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(damaged)?;
    match (application, format) {
        (0, 0) if tables == 0 => Ok(()),
        (APPLICATION, FORMAT) => Ok(()),
        (APPLICATION, found) => Err(OpenError::Newer { path: path.to_owned(), found }),
        (_, _) => Err(OpenError::Foreign { path: path.to_owned() }),
    }
}

/// "SPEC": marks the file as ours (SQLite's `application_id`).
const APPLICATION: i32 = 0x5350_4543;

/// Version of the tables (SQLite's `user_version`). A change of them raises it and brings a migration.
const FORMAT: i32 = 1;

/// One transaction, so that a crash leaves either nothing or a complete file of this format.
const SCHEMA: &str = "
    BEGIN IMMEDIATE;
    PRAGMA application_id = 0x53504543;
    PRAGMA user_version = 1;
    CREATE TABLE IF NOT EXISTS register (key BLOB PRIMARY KEY, head BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS child (key BLOB, child BLOB, PRIMARY KEY (key, child)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS meta (id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL);
    INSERT OR IGNORE INTO meta (id, sequence) VALUES (1, 0);
    COMMIT;";

#[cfg(test)]
pub(crate) mod tests;
