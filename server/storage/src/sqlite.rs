//! The snapshot as an SQLite file. The one file of this crate that names rusqlite.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it returns.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::{
    identity::{Identity, Unreadable},
    snapshot::{Change, Row, Snapshot, SnapshotError},
};

/// The open file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    connection: Connection,
}

/// "SPES": marks the file as ours (SQLite's `application_id`).
const APPLICATION: i32 = 0x5350_4553;

/// Version of the tables (SQLite's `user_version`). A change of them raises it and brings a migration.
const FORMAT: i32 = 1;

/// One transaction, so that a crash leaves either nothing or a complete file of this format.
const SCHEMA: &str = "
    BEGIN IMMEDIATE;
    PRAGMA application_id = 0x53504553;
    PRAGMA user_version = 1;
    CREATE TABLE reg (
        slot INTEGER, key BLOB, version BLOB NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (slot, key)
    ) WITHOUT ROWID;
    CREATE TABLE slot (slot INTEGER PRIMARY KEY, meta BLOB NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1), lsn INTEGER NOT NULL, node BLOB NOT NULL, cluster BLOB NOT NULL,
        crc INTEGER NOT NULL
    );";

impl Sqlite {
    /// Opens the file, or makes an empty one for its node (0600).
    ///
    /// # Errors
    /// [`SnapshotError`], with a way out.
    pub fn open(path: &Path, identity: &Identity) -> Result<Self, SnapshotError> {
        let failed = |source: std::io::Error| SnapshotError::Failed { path: path.to_owned(), source: source.into() };
        // SQLite gives its side files the mode of the main file.
        private().create(true).truncate(false).open(path).map_err(failed)?;
        let connection = Connection::open(path).map_err(|error| wrong(path, error))?;
        let mut snapshot = Self { path: path.to_owned(), connection };
        snapshot.prepare(identity).map_err(|error| snapshot.wrong(error))??;
        // The new file is there, and the journal of its making is gone: SQLite goes on if it cannot make that durable, and a
        // power cut would bring the journal back, with which the next start undoes what was written since.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(snapshot)
    }

    /// Copies a file that another process may have open, as it is at one moment. Tells whether there is one.
    ///
    /// # Errors
    /// [`SnapshotError`]; `to` is then not complete.
    pub fn copy(from: &Path, to: &Path) -> Result<bool, SnapshotError> {
        let failed = |source: std::io::Error| SnapshotError::Failed { path: to.to_owned(), source: source.into() };
        if !from.exists() {
            return Ok(false);
        }
        let file = private().create(true).truncate(true).open(to).map_err(failed)?;
        let connection =
            Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| wrong(from, error))?;
        let path = to.to_str().ok_or_else(|| failed(std::io::ErrorKind::InvalidFilename.into()))?;
        connection.execute("VACUUM INTO ?1", [path]).map_err(|error| wrong(to, error))?;
        file.sync_all().map_err(failed)?;
        Ok(true)
    }

    /// Looks through the whole file for damage of its structure.
    fn check(&self) -> Result<(), SnapshotError> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.wrong(error))?;
        if found == "ok" { Ok(()) } else { Err(self.unreadable(Unreadable::Damaged)) }
    }

    fn prepare(&mut self, identity: &Identity) -> Result<Result<(), SnapshotError>, rusqlite::Error> {
        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let (application, format) = (number("application_id")?, number("user_version")?);
        let tables: i64 = self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let is_new = (application, format, tables) == (0, 0, 0);
        if !is_new && application != APPLICATION {
            return Ok(Err(SnapshotError::Foreign { path: self.path.clone() }));
        }
        if !is_new && format != FORMAT {
            let format = u16::try_from(format).unwrap_or(u16::MAX);
            return Ok(Err(self.unreadable(Unreadable::Format(format))));
        }
        if is_new {
            // Before there is a table; it lets the file shrink.
            self.connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        let mode = self.write_ahead()?;
        if mode != "wal" {
            let source =
                format!("SQLite cannot keep a write-ahead log beside it: the journal mode stays {mode}").into();
            return Ok(Err(SnapshotError::Failed { path: self.path.clone(), source }));
        }
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        // `commit` does it, so that the file is never longer than it must be.
        self.connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        if is_new {
            self.connection.execute_batch(SCHEMA)?;
            let crc = meta_crc(0, &identity.node, &identity.cluster);
            self.connection.execute(
                "INSERT INTO meta (id, lsn, node, cluster, crc) VALUES (1, 0, ?1, ?2, ?3)",
                params![identity.node, identity.cluster, crc],
            )?;
            self.connection.execute_batch("COMMIT")?;
        }
        let meta = self.meta()?;
        Ok(meta.and_then(|(_, found)| {
            if found == *identity { Ok(()) } else { Err(SnapshotError::Foreign { path: self.path.clone() }) }
        }))
    }

    /// Switches to a write-ahead log, in which a commit is durable, and tells which mode there is then.
    fn write_ahead(&self) -> Result<String, rusqlite::Error> {
        let mut change = self.connection.prepare("PRAGMA journal_mode = WAL")?;
        let mut rows = change.query([])?;
        let mut mode = String::new();
        // To the end: the answer comes before the change is written, and then a failure.
        while let Some(row) = rows.next()? {
            mode = row.get(0)?;
        }
        Ok(mode)
    }

    fn meta(&self) -> Result<Result<(u64, Identity), SnapshotError>, rusqlite::Error> {
        let row: Option<(i64, [u8; 16], [u8; 16], u32)> = self
            .connection
            .query_row("SELECT lsn, node, cluster, crc FROM meta WHERE id = 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        Ok(match row {
            Some((lsn, node, cluster, crc)) if crc == meta_crc(lsn.cast_unsigned(), &node, &cluster) => {
                Ok((lsn.cast_unsigned(), Identity { node, cluster }))
            }
            Some(_) | None => Err(self.unreadable(Unreadable::Damaged)),
        })
    }

    fn rows(&self, each: &mut dyn FnMut(Row<'_>)) -> Result<Result<(), SnapshotError>, rusqlite::Error> {
        let mut statement = self.connection.prepare("SELECT slot, meta, crc FROM slot")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (slot, meta, crc): (u16, _, u32) = (row.get(0)?, blob(row, 1)?, row.get(2)?);
            let row = Row::Slot { slot, meta };
            if row_crc(&row) != crc {
                return Ok(Err(SnapshotError::Row { path: self.path.clone(), slot }));
            }
            each(row);
        }
        let mut statement = self.connection.prepare("SELECT slot, key, version, value, crc FROM reg")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (slot, crc): (u16, u32) = (row.get(0)?, row.get(4)?);
            let row = Row::Register { slot, key: blob(row, 1)?, version: blob(row, 2)?, value: blob(row, 3)? };
            if row_crc(&row) != crc {
                return Ok(Err(SnapshotError::Row { path: self.path.clone(), slot }));
            }
            each(row);
        }
        Ok(Ok(()))
    }

    fn write(&mut self, lsn: u64, changes: &[Change<'_>]) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        {
            let mut put = transaction
                .prepare("INSERT OR REPLACE INTO reg (slot, key, version, value, crc) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut put_slot =
                transaction.prepare("INSERT OR REPLACE INTO slot (slot, meta, crc) VALUES (?1, ?2, ?3)")?;
            let mut remove = transaction.prepare("DELETE FROM reg WHERE slot = ?1 AND key = ?2")?;
            let mut drop_rows = transaction.prepare("DELETE FROM reg WHERE slot = ?1")?;
            let mut drop_slot = transaction.prepare("DELETE FROM slot WHERE slot = ?1")?;
            for change in changes {
                match change {
                    Change::Put(row @ Row::Register { slot, key, version, value }) => {
                        put.execute(params![slot, key, version, value, row_crc(row)])?;
                    }
                    Change::Put(row @ Row::Slot { slot, meta }) => {
                        put_slot.execute(params![slot, meta, row_crc(row)])?;
                    }
                    Change::Remove { slot, key } => {
                        remove.execute(params![slot, key])?;
                    }
                    Change::Drop { slot } => {
                        drop_rows.execute(params![slot])?;
                        drop_slot.execute(params![slot])?;
                    }
                }
            }
            let (node, cluster): ([u8; 16], [u8; 16]) =
                transaction.query_row("SELECT node, cluster FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            transaction.execute(
                "UPDATE meta SET lsn = ?1, crc = ?2",
                params![lsn.cast_signed(), meta_crc(lsn, &node, &cluster)],
            )?;
        }
        transaction.commit()?;
        self.shrink()
    }

    /// Gives room back that removed rows had, and empties the side file.
    fn shrink(&self) -> Result<(), rusqlite::Error> {
        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        if number("freelist_count")? > number("page_count")? / 4 {
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    fn wrong(&self, error: rusqlite::Error) -> SnapshotError {
        wrong(&self.path, error)
    }

    fn unreadable(&self, reason: Unreadable) -> SnapshotError {
        SnapshotError::Unreadable { path: self.path.clone(), reason }
    }
}

impl Snapshot for Sqlite {
    fn load(&mut self, each: &mut dyn FnMut(Row<'_>)) -> Result<u64, SnapshotError> {
        // Each row has a checksum, and nothing says how many there are: one that a damaged page hides would not be missed.
        self.check()?;
        self.rows(each).map_err(|error| self.wrong(error))??;
        self.lsn()
    }

    fn commit(&mut self, lsn: u64, changes: &[Change<'_>]) -> Result<(), SnapshotError> {
        self.write(lsn, changes).map_err(|error| self.wrong(error))
    }

    fn lsn(&mut self) -> Result<u64, SnapshotError> {
        let meta = self.meta().map_err(|error| self.wrong(error))?;
        meta.map(|(lsn, _)| lsn)
    }
}

fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn wrong(path: &Path, error: rusqlite::Error) -> SnapshotError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SnapshotError::Full(error.into()),
        // Told before the first row is written: the transaction is taken back as a whole.
        Some(ErrorCode::DatabaseBusy) => SnapshotError::Busy { path: path.to_owned() },
        Some(ErrorCode::NotADatabase) => SnapshotError::Foreign { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt) => {
            SnapshotError::Unreadable { path: path.to_owned(), reason: Unreadable::Damaged }
        }
        Some(_) | None => SnapshotError::Failed { path: path.to_owned(), source: error.into() },
    }
}

fn blob<'a>(row: &'a rusqlite::Row<'_>, index: usize) -> Result<&'a [u8], rusqlite::Error> {
    Ok(row.get_ref(index)?.as_blob()?)
}

fn row_crc(row: &Row<'_>) -> u32 {
    let (slot, parts) = match row {
        Row::Register { slot, key, version, value } => (slot, [*key, *version, *value]),
        Row::Slot { slot, meta } => (slot, [*meta, &[], &[]]),
    };
    parts.iter().fold(crc32c::crc32c(&slot.to_le_bytes()), |crc, part| {
        let length = u64::try_from(part.len()).expect("a length fits 64 bits");
        let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
        crc32c::crc32c_append(crc, part)
    })
}

fn meta_crc(lsn: u64, node: &[u8; 16], cluster: &[u8; 16]) -> u32 {
    let crc = crc32c::crc32c(&lsn.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, node), cluster)
}

pub mod salvage;
#[cfg(test)]
mod tests;
