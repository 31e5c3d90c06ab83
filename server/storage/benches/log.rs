//! What the log costs, as ratios against others in the same run on the same disk.
//!
//! `cargo bench -p specter-storage` measures in the folder for temporary files; give another one behind `--`.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use specter_storage::{
    disk::Folder,
    identity::Identity,
    log::Need,
    recover::{Opening, open},
    settings::Settings,
    snapshot::{Change, Row, checkpoint},
    sqlite::Sqlite,
    writer::{OwnedEntry, Writer},
};

const NODE: Identity = Identity { node: [1; 16], cluster: [2; 16] };
const OPENING: Opening = Opening {
    identity: NODE,
    settings: Settings {
        policy: specter_storage::settings::Policy::Always,
        segment_bytes: 8 << 20,
        reserve_bytes: 32 << 20,
        reclaim_every: Duration::from_secs(10),
    },
    random: [3; 32],
};

/// A register's key, version and value, as a node logs it.
const PAYLOAD_BYTES: usize = 200;

/// How long each rate is measured, in turns with the others, so that a slow minute of the disk meets all of them.
const TURN: Duration = Duration::from_millis(700);
const TURNS: u32 = 5;

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = tempfile::tempdir_in(given.map_or_else(std::env::temp_dir, PathBuf::from)).expect("a folder");
    rates(folder.path());
    replay(folder.path());
    size(folder.path());
}

/// Confirmed writes a second.
fn rates(folder: &Path) {
    let mut bare = Bare::new(&folder.join("bare"));
    let mut sqlite = Plain::new(&folder.join("plain.db"));
    let path = folder.join("node");
    let (log, _) = open(Folder::open(&path).expect("a folder"), &OPENING, 0, |_| ()).expect("a new log");
    let writer = Writer::start(log, |_| ()).expect("a thread");
    let mut counts = [0_u64; 4];
    for _ in 0..TURNS {
        counts[0] += turn(|| bare.write());
        counts[1] += turn(|| sqlite.write());
        counts[2] += with_writers(&writer, 1);
        counts[3] += with_writers(&writer, 64);
    }
    writer.close().expect("an end");
    let seconds = (TURN * TURNS).as_secs_f64();
    let rate = |index: usize| f64::from(u32::try_from(counts[index]).expect("few writes")) / seconds;
    println!("confirmed writes of {PAYLOAD_BYTES} bytes a second");
    println!("  append and sync, bare      {:>9.0}", rate(0));
    println!("  SQLite, synchronous=FULL   {:>9.0}", rate(1));
    for (index, writers) in [(2, 1), (3, 64)] {
        let (bare, sqlite) = (rate(index) / rate(0), rate(index) / rate(1));
        println!(
            "  log, {writers:>2} writers            {:>9.0}   {bare:>5.1} x bare   {sqlite:>6.1} x SQLite",
            rate(index)
        );
    }
}

fn turn(mut write: impl FnMut()) -> u64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TURN {
        write();
        count += 1;
    }
    count
}

/// Each writer waits for its answer before it writes again.
fn with_writers(writer: &Writer<Folder>, writers: usize) -> u64 {
    let (sender, answers) = channel();
    let submit = || {
        let sender = sender.clone();
        let entry = OwnedEntry { kind: 1, slot: 1, payload: vec![7; PAYLOAD_BYTES] };
        let done = move |result: Result<u64, _>| {
            result.expect("a write");
            // The last answers come when nobody waits any more.
            let _ = sender.send(());
        };
        writer.submit(vec![entry], Need::Ordinary, done).expect("room");
    };
    let start = Instant::now();
    (0..writers).for_each(|_| submit());
    let mut count = 0;
    while start.elapsed() < TURN {
        answers.recv().expect("an answer");
        submit();
        count += 1;
    }
    (0..writers).for_each(|_| answers.recv().expect("an answer"));
    count
}

/// How fast a start reads what is there.
fn replay(folder: &Path) {
    const BYTES: usize = 256 << 20;
    println!("replay");
    for payload_bytes in [PAYLOAD_BYTES, 4096] {
        let path = folder.join(format!("replay-{payload_bytes}"));
        let (mut log, _) = open(Folder::open(&path).expect("a folder"), &OPENING, 0, |_| ()).expect("a new log");
        let payload = vec![7; payload_bytes];
        let entry = specter_storage::record::Entry { kind: 1, slot: 1, payload: &payload };
        let records = BYTES / payload_bytes;
        for _ in 0..records / 200 {
            log.append(&[entry; 200], Need::Ordinary).expect("a write");
        }
        log.close().expect("an end");
        let log_bytes = size_of(&path.join("log"));
        let (start, mut sum) = (Instant::now(), 0_u64);
        let each = |record: specter_storage::record::Record<'_>| sum += u64::from(record.entry.payload[0]);
        let (_, found) = open(Folder::open(&path).expect("a folder"), &OPENING, 0, each).expect("a log");
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(sum, found.records * 7);
        let rate = megabytes(log_bytes) / seconds;
        println!("  {:>7} records of {payload_bytes:>4} bytes   {seconds:.2} s   {rate:>5.0} MB/s", found.records);
        fs::remove_dir_all(path).expect("removal");
    }
}

/// What is on the disk after a checkpoint, for each byte that is stored.
fn size(folder: &Path) {
    const KEYS: u32 = 300_000;
    let path = folder.join("size");
    let (log, _) = open(Folder::open(&path).expect("a folder"), &OPENING, 0, |_| ()).expect("a new log");
    let mut log = log;
    let mut snapshot = Sqlite::open(&path.join("snap.db"), &NODE).expect("a snapshot");
    let value = [7; PAYLOAD_BYTES - 32];
    let mut live_bytes = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        // First all keys, then a fifth of them again, at places that say nothing of their order.
        let keys: Vec<_> = (0..if round == 0 { KEYS } else { KEYS / 5 })
            .map(|index| (index.wrapping_mul(2_654_435_761) % KEYS).to_be_bytes())
            .collect();
        let mut keys = keys.iter().map(|key| [&key[..], &[0; 12]].concat()).collect::<Vec<_>>();
        for batch in keys.chunks(100) {
            let payloads: Vec<_> = batch.iter().map(|key| [&key[..], &[1; 16], &value[..]].concat()).collect();
            let entries: Vec<_> =
                payloads.iter().map(|payload| specter_storage::record::Entry { kind: 1, slot: 1, payload }).collect();
            log.append(&entries, Need::Ordinary).expect("a write");
        }
        keys.sort_unstable();
        keys.dedup();
        live_bytes = live_bytes.max(u64::try_from(keys.len() * PAYLOAD_BYTES).expect("a length"));
        let row = |key| Change::Put(Row::Register { slot: 1, key, version: &[1; 16], value: &value });
        let changes: Vec<_> = keys.iter().map(|key| row(key)).collect();
        let lsn = log.sync().expect("a sync");
        let start = Instant::now();
        let saved = checkpoint(&mut snapshot, lsn, &changes).expect("a checkpoint");
        slowest = slowest.max(start.elapsed());
        log.forget(saved).expect("removal");
    }
    log.close().expect("an end");
    let reserve = size_of(&path.join("RESERVE"));
    let disk = size_of(&path) - reserve;
    let start = Instant::now();
    let mut rows = 0;
    let mut snapshot = Sqlite::open(&path.join("snap.db"), &NODE).expect("a snapshot");
    specter_storage::snapshot::Snapshot::load(&mut snapshot, &mut |_| rows += 1).expect("rows");
    println!("after a checkpoint of {rows} keys, {:.0} MB live", megabytes(live_bytes));
    println!("  on disk {:.0} MB, {:.2} bytes a live byte", megabytes(disk), megabytes(disk) / megabytes(live_bytes));
    println!(
        "  longest checkpoint {:.2} s, rows loaded in {:.2} s",
        slowest.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
}

/// A file that grows by one record a sync.
struct Bare {
    file: fs::File,
    at: u64,
}

impl Bare {
    fn new(path: &Path) -> Self {
        Self { file: fs::File::create(path).expect("a file"), at: 0 }
    }

    fn write(&mut self) {
        self.file.write_all_at(&[7; PAYLOAD_BYTES], self.at).expect("a write");
        self.file.sync_data().expect("a sync");
        self.at += 200;
    }
}

/// The same writes as transactions.
struct Plain {
    connection: Connection,
    key: u32,
}

impl Plain {
    fn new(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a database");
        connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        connection.pragma_update(None, "synchronous", "FULL").expect("FULL");
        let table = "CREATE TABLE reg (key INTEGER PRIMARY KEY, value BLOB)";
        connection.execute_batch(table).expect("a table");
        Self { connection, key: 0 }
    }

    fn write(&mut self) {
        self.key += 1;
        let mut insert = self.connection.prepare("INSERT INTO reg VALUES (?1, ?2)").expect("a statement");
        insert.execute(params![self.key, [7_u8; PAYLOAD_BYTES]]).expect("a write");
    }
}

fn size_of(path: &Path) -> u64 {
    let metadata = path.metadata().expect("a file");
    if !metadata.is_dir() {
        return metadata.len();
    }
    path.read_dir().expect("a folder").map(|entry| size_of(&entry.expect("an entry").path())).sum()
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).expect("below 4 TiB")) / 1024.0
}
