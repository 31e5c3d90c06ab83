//! What a directory holds, told without a change to it.

use std::fmt;

use crate::{
    disk::Disk,
    identity::{Boot, Identity},
    record::Record,
    recover::{Found, OpenError, look},
    settings::Policy,
};

/// A directory in which nothing is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whose it is.
    pub identity: Identity,
    /// The last start.
    pub boot: Boot,
    /// When its records counted as kept.
    pub policy: Policy,
    /// The last start was closed.
    pub is_closed: bool,
    /// The next start is told that records may be missing, as on a copy.
    pub may_have_forgotten: bool,
    /// The last record that the snapshot holds.
    pub snapshot_lsn: u64,
    /// The last record.
    pub last_lsn: u64,
    /// How many records are replayed over the snapshot.
    pub records: u64,
    /// What the segments that hold them take.
    pub log_bytes: u64,
    /// What the next start cuts off.
    pub torn_bytes: usize,
}

/// Reads a directory as a start would, and hands out every record after `snapshot_lsn`. Nothing if it was never started.
///
/// # Errors
/// [`OpenError`], as a start would tell it.
pub fn read<D: Disk>(disk: &D, snapshot_lsn: u64, each: impl FnMut(Record<'_>)) -> Result<Option<Report>, OpenError> {
    let Found { owner, left, scan } = look(disk, None, snapshot_lsn, each)?;
    let (Some(identity), Some(left)) = (owner, left) else { return Ok(None) };
    Ok(Some(Report {
        identity,
        boot: left.boot,
        policy: left.policy,
        is_closed: left.closed_at.is_some(),
        may_have_forgotten: left.may_have_forgotten,
        snapshot_lsn,
        last_lsn: scan.end.next_lsn - 1,
        records: scan.records,
        log_bytes: scan.end.sealed.iter().map(|segment| segment.size_bytes).sum(),
        torn_bytes: scan.last.map_or(0, |last| last.torn.len()),
    }))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node        {}", hex(&self.identity.node))?;
        writeln!(f, "cluster     {}", hex(&self.identity.cluster))?;
        writeln!(
            f,
            "starts      {}, the last one {}",
            self.boot.number,
            if self.is_closed { "closed" } else { "open" }
        )?;
        writeln!(f, "sync        {}", policy(self.policy))?;
        writeln!(f, "snapshot    up to record {}", self.snapshot_lsn)?;
        writeln!(f, "log         up to record {}: {} records, {} bytes", self.last_lsn, self.records, self.log_bytes)?;
        if self.torn_bytes > 0 {
            writeln!(
                f,
                "torn end    {} bytes, of which nobody was told; the next start cuts them off",
                self.torn_bytes
            )?;
        }
        if self.may_have_forgotten {
            writeln!(f, "incomplete  the node that starts on it does not vote as the one that it was")?;
        }
        Ok(())
    }
}

impl Report {
    /// The same for programs: one JSON object.
    pub fn to_json(&self) -> String {
        format!(
            r#"{{"node":"{}","cluster":"{}","starts":{},"closed":{},"may_have_forgotten":{},"sync":"{}","snapshot_lsn":{},"last_lsn":{},"records":{},"log_bytes":{},"torn_bytes":{}}}"#,
            hex(&self.identity.node),
            hex(&self.identity.cluster),
            self.boot.number,
            self.is_closed,
            self.may_have_forgotten,
            policy(self.policy),
            self.snapshot_lsn,
            self.last_lsn,
            self.records,
            self.log_bytes,
            self.torn_bytes,
        )
    }
}

/// A record as one JSON object, its payload in hexadecimal.
pub fn record_to_json(record: &Record<'_>) -> String {
    let entry = &record.entry;
    format!(
        r#"{{"lsn":{},"kind":{},"slot":{},"payload":"{}"}}"#,
        record.lsn,
        entry.kind,
        entry.slot,
        hex(entry.payload)
    )
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Always => "always",
        Policy::EverySecond => "everysec",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::FaultDisk,
        log::Need,
        record::Entry,
        tests::{filled, segments},
    };

    #[test]
    fn a_directory_is_told_and_left_as_it_is() {
        let disk = FaultDisk::new();
        assert_eq!(read(&disk, 0, |_| ()).unwrap(), None);
        filled(&disk, 9).close().unwrap();
        let (before, mut lines) = ((disk.paths(), disk.unsynced()), Vec::new());
        let report = read(&disk, 7, |record| lines.push(record_to_json(&record))).unwrap().unwrap();
        assert_eq!((disk.paths(), disk.unsynced()), before);
        assert_eq!((report.records, report.last_lsn, report.is_closed), (2, 9, true));
        assert!(lines[0].starts_with(r#"{"lsn":8,"kind":1,"slot":2,"payload":"0800000000000000abab"#), "{}", lines[0]);
        let node = "01".repeat(16);
        assert!(report.to_string().starts_with(&format!("node        {node}\n")), "{report}");
        let json = report.to_json();
        assert!(
            json.starts_with(&format!(r#"{{"node":"{node}","cluster":"{}","starts":1,"#, "02".repeat(16))),
            "{json}"
        );
        assert!(json.ends_with(r#""last_lsn":9,"records":2,"log_bytes":336,"torn_bytes":0}"#), "{json}");
    }

    #[test]
    fn a_torn_end_is_told_and_damage_is_an_error() {
        let disk = FaultDisk::new();
        let mut log = filled(&disk, 2);
        log.append(&[Entry { kind: 1, slot: 1, payload: &[9; 300] }], Need::Ordinary).unwrap();
        disk.flip(&segments(&disk)[0], (64 + 2 * 136 + 40) * 8);
        let report = read(&disk, 0, |_| ()).unwrap().unwrap();
        assert_eq!((report.records, report.torn_bytes), (2, 332));
        assert!(report.to_string().contains("torn end    332 bytes"), "{report}");
        disk.flip(&segments(&disk)[0], 70 * 8);
        assert!(matches!(read(&disk, 0, |_| ()), Err(OpenError::Damaged { lsn: 1, .. })));
    }
}
