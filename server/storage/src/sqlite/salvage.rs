//! What can still be read of a snapshot in which something is damaged.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{blob, row_crc};
use crate::snapshot::Row;

/// Hands out every row of a snapshot that is whole, and tells whether that is all of it.
pub fn rows(path: &Path, each: &mut dyn FnMut(Row<'_>)) -> bool {
    let Ok(connection) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return false };
    let is_sound = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let mut is_whole = is_sound.is_ok_and(|found| found == "ok");
    let mut slots = |range: &str| sound_slots(&connection, range, each);
    if !slots("ORDER BY slot") {
        is_whole = false;
        slots("ORDER BY slot DESC");
    }
    for slot in 0..=u16::MAX {
        // From both ends up to a damaged page in between.
        if !sound_registers(&connection, slot, "ORDER BY key", each) {
            is_whole = false;
            sound_registers(&connection, slot, "ORDER BY key DESC", each);
        }
    }
    is_whole
}

/// Hands out what a slot has beside its registers, of each, up to a page that cannot be read. Tells whether that was all, and
/// all of it sound.
fn sound_slots(connection: &Connection, order: &str, each: &mut dyn FnMut(Row<'_>)) -> bool {
    let query = format!("SELECT slot, meta, crc FROM slot {order}");
    sound_rows(connection, &query, None, &mut |row| {
        let (slot, crc): (u16, u32) = (row.get(0)?, row.get(2)?);
        let row = Row::Slot { slot, meta: blob(row, 1)? };
        let is_sound = row_crc(&row) == crc;
        if is_sound {
            each(row);
        }
        Ok(is_sound)
    })
}

/// The same of one slot's registers.
fn sound_registers(connection: &Connection, slot: u16, order: &str, each: &mut dyn FnMut(Row<'_>)) -> bool {
    let query = format!("SELECT key, version, value, crc FROM reg WHERE slot = ?1 {order}");
    sound_rows(connection, &query, Some(slot), &mut |row| {
        let crc: u32 = row.get(3)?;
        let row = Row::Register { slot, key: blob(row, 0)?, version: blob(row, 1)?, value: blob(row, 2)? };
        let is_sound = row_crc(&row) == crc;
        if is_sound {
            each(row);
        }
        Ok(is_sound)
    })
}

fn sound_rows(
    connection: &Connection,
    query: &str,
    slot: Option<u16>,
    take: &mut dyn FnMut(&rusqlite::Row<'_>) -> Result<bool, rusqlite::Error>,
) -> bool {
    let mut read = || {
        let mut statement = connection.prepare(query)?;
        let mut rows = statement.query(rusqlite::params_from_iter(slot))?;
        let mut is_sound = true;
        while let Some(row) = rows.next()? {
            // A row of another shape is passed over like one whose checksum is wrong.
            is_sound &= take(row).unwrap_or(false);
        }
        Ok::<_, rusqlite::Error>(is_sound)
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        snapshot::{Change, Snapshot as _},
        sqlite::Sqlite,
        tests::NODE,
    };

    #[test]
    fn every_row_of_a_snapshot_but_the_damaged_ones_is_read() {
        const ROWS: u16 = 2000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snap.db");
        let mut sqlite = Sqlite::open(&path, &NODE).unwrap();
        let keys: Vec<[u8; 2]> = (0..ROWS).map(u16::to_be_bytes).collect();
        let row = |key: &'static [u8]| Change::Put(Row::Register { slot: 3, key, version: b"v", value: &[7; 40] });
        let keys: Vec<&'static [u8]> = keys.iter().map(|key| &*Box::leak(Box::new(*key)) as &[u8]).collect();
        let slot = Change::Put(Row::Slot { slot: 3, meta: b"meta" });
        let changes: Vec<_> = keys.iter().map(|key| row(key)).chain([slot]).collect();
        sqlite.commit(9, &changes).unwrap();
        drop(sqlite);
        let read = || {
            let (mut seen, mut slots) = (std::collections::BTreeSet::new(), 0);
            let is_whole = rows(&path, &mut |row| match row {
                Row::Slot { .. } => slots += 1,
                Row::Register { key, value, .. } => {
                    assert_eq!(value, [7; 40]);
                    seen.insert(key.to_vec());
                }
            });
            (is_whole, seen.len(), slots)
        };
        assert_eq!(read(), (true, usize::from(ROWS), 1));
        let mut bytes = std::fs::read(&path).unwrap();
        // A value somewhere in the middle.
        let middle = bytes.len() / 2;
        let at = middle + bytes[middle..].windows(40).position(|window| window == [7; 40]).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(), (false, usize::from(ROWS) - 1, 1));
        // The page that it stands on.
        let page = at / 4096 * 4096;
        bytes[page..page + 4096].fill(0xee);
        std::fs::write(&path, &bytes).unwrap();
        let (is_whole, seen, slots) = read();
        assert!(!is_whole && seen > usize::from(ROWS) * 9 / 10 && seen < usize::from(ROWS) && slots == 1, "{seen}");
        std::fs::write(&path, b"nonsense").unwrap();
        assert_eq!(read(), (false, 0, 0));
    }
}
