//! A process that is killed at any moment leaves every write that it confirmed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use specter_storage::{
    disk::Folder,
    identity::Identity,
    log::{Log, Need},
    recover::{Opening, open},
    settings::Settings,
    snapshot::{Change, Row, Saved, Snapshot, checkpoint},
    sqlite::Sqlite,
    writer::{OwnedEntry, Writer},
};

const NODE: Identity = Identity { node: [1; 16], cluster: [2; 16] };

/// Set for the process that is killed: its data directory.
const CHILD: &str = "SPECTER_STORAGE_TEST_FOLDER";

/// The one register says how many records there were; each record says its own number.
fn start(path: &Path) -> (Log<Folder>, Sqlite, u64) {
    let folder = Folder::open(path).expect("a folder");
    let mut snapshot = Sqlite::open(&path.join("snap.db"), &NODE).expect("a snapshot");
    let mut count = 0;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let lsn = snapshot.load(&mut |row| match row {
        Row::Register { value, .. } => count = number(value),
        Row::Slot { .. } => {}
    });
    let settings = Settings { segment_bytes: 64 << 10, reserve_bytes: 64 << 10, ..Settings::default() };
    let opening = Opening { identity: NODE, settings, random: [5; 32] };
    let (log, found) = open(folder, &opening, lsn.expect("rows"), |record| {
        count += 1;
        assert_eq!((number(record.entry.payload), record.lsn), (count, count));
    })
    .expect("a log");
    assert_eq!(found.last_lsn, count);
    (log, snapshot, count)
}

#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (log, mut snapshot, mut count) = start(Path::new(&path));
    let writer = Writer::start(log, |_| ()).unwrap();
    let (sender, answers) = channel();
    let submit = |number: u64| {
        let sender = sender.clone();
        let payload = [&number.to_le_bytes()[..], &[0xab; 300]].concat();
        let done = move |result: Result<u64, _>| sender.send(result.unwrap()).unwrap();
        writer.submit(vec![OwnedEntry { kind: 1, slot: 1, payload }], Need::Ordinary, done).unwrap();
    };
    for _ in 0..16 {
        count += 1;
        submit(count);
    }
    let mut out = std::io::stdout();
    loop {
        let lsn = answers.recv().unwrap();
        writeln!(out, "confirmed {lsn}").unwrap();
        if lsn % 300 == 0 {
            let value = lsn.to_le_bytes();
            let row = Row::Register { slot: 1, key: b"count", version: b"", value: &value };
            let saved: Saved = checkpoint(&mut snapshot, lsn, &[Change::Put(row)]).unwrap();
            writer.forget(saved);
        }
        count += 1;
        submit(count);
    }
}

#[test]
fn what_a_killed_process_confirmed_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed = 0;
    for round in 1..=20 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut number = || lines.find_map(|line| line.unwrap().rsplit_once("confirmed ")?.1.parse::<u64>().ok());
        for _ in 0..round * 37 {
            confirmed = number().expect("a confirmation");
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // What was confirmed before the end, and not read yet.
        while let Some(more) = number() {
            confirmed = more;
        }
        let (_, _, found) = start(folder.path());
        assert!(found >= confirmed, "round {round}: {found} found, {confirmed} confirmed");
        assert!(found <= confirmed + 17, "round {round}: {found} found, {confirmed} confirmed");
    }
}
