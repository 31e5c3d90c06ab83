//! What the tests of this crate share.

mod matrix;

use crate::{
    fault::FaultDisk,
    identity::Identity,
    log::{Log, Need},
    record::Entry,
    recover::{OpenError, Opening, Recovered, open},
    settings::Settings,
};

pub(crate) const NODE: Identity = Identity { node: [1; 16], cluster: [2; 16] };

/// Small, so that a few records fill a segment.
pub(crate) const SMALL: Settings = Settings {
    policy: crate::settings::Policy::Always,
    segment_bytes: 1024,
    reserve_bytes: 2048,
    reclaim_every: std::time::Duration::from_secs(10),
};

pub(crate) fn opening() -> Opening {
    Opening { identity: NODE, settings: SMALL, random: [7; 32] }
}

pub(crate) struct Opened {
    pub(crate) log: Log<FaultDisk>,
    pub(crate) found: Recovered,
    /// Payloads after the snapshot.
    pub(crate) records: Vec<Vec<u8>>,
}

pub(crate) fn try_reopen(disk: &FaultDisk, snapshot_lsn: u64) -> Result<Opened, OpenError> {
    let mut records = Vec::new();
    let mut next_lsn = None;
    let (log, found) = open(disk.clone(), &opening(), snapshot_lsn, |record| {
        assert_eq!(*next_lsn.get_or_insert(record.lsn), record.lsn);
        next_lsn = Some(record.lsn + 1);
        records.push(record.entry.payload.to_vec());
    })?;
    Ok(Opened { log, found, records })
}

pub(crate) fn reopen(disk: &FaultDisk) -> Opened {
    try_reopen(disk, 0).unwrap()
}

pub(crate) fn put(log: &mut Log<FaultDisk>, payloads: &[&[u8]]) {
    let entries: Vec<_> = payloads.iter().map(|payload| Entry { kind: 1, slot: 2, payload }).collect();
    log.append(&entries, Need::Ordinary).unwrap();
    log.sync().unwrap();
}

/// A log of so many records of 100 bytes, one a sync, with the number of the record in front.
pub(crate) fn filled(disk: &FaultDisk, records: u64) -> Log<FaultDisk> {
    let mut log = reopen(disk).log;
    for lsn in 1..=records {
        put(&mut log, &[&numbered(lsn)]);
    }
    log
}

pub(crate) fn numbered(lsn: u64) -> Vec<u8> {
    [&lsn.to_le_bytes()[..], &[0xab; 92]].concat()
}

pub(crate) fn numbers(opened: &Opened) -> Vec<u64> {
    opened.records.iter().map(|payload| u64::from_le_bytes(crate::identity::array(payload))).collect()
}

pub(crate) fn segments(disk: &FaultDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect()
}
