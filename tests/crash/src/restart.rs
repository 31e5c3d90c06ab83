//! How long a start takes on many keys: with all of them in the log, and with all of them in the snapshot.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::child::{Child, PATIENCE, Place};

/// Calls under way at a time.
const WINDOW: u64 = 400;

/// Length of a value: that of a route or of a hostname's owner.
const VALUE_BYTES: usize = 64;

/// How long one writer is measured.
const ALONE: Duration = Duration::from_secs(2);

/// Starts of which the quickest counts, since others use the machine too.
const STARTS: usize = 3;

/// What was measured.
#[derive(Debug)]
pub struct Report {
    keys: u64,
    /// Writes in [`ALONE`], one at a time.
    alone: u32,
    written: Duration,
    log: Measured,
    snapshot: Measured,
}

#[derive(Debug)]
struct Measured {
    bytes: u64,
    ready: Duration,
    /// Until the first read was answered.
    served: Duration,
}

/// Writes the keys, then measures.
///
/// # Errors
/// The store does not do what it should.
pub fn run(program: &Path, keys: u64, everysec: bool) -> Result<Report, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let place = Place { everysec, ..Place::prepare(program, folder.path())? };
    let snapshot = place.data.join("snap.db");
    let mut child = Child::start(&place)?;
    child.ready()?;
    // A snapshot that cannot be written: the log keeps everything.
    fs::create_dir(&snapshot)?;
    let value = "v".repeat(VALUE_BYTES);
    let (mut alone, began) = (0, Instant::now());
    while began.elapsed() < ALONE {
        child.ask(&format!("put alone {value}"))?;
        alone += 1;
    }
    let began = Instant::now();
    let (mut next, mut open) = (0, 0);
    while next < keys || open > 0 {
        while next < keys && open < WINDOW {
            child.call(next, &format!("put key-{next} {value}"))?;
            (next, open) = (next + 1, open + 1);
        }
        child.flush()?;
        let (id, answer) = child.answer(PATIENCE).ok_or("a write was not answered in time")?;
        if answer == "done" {
            open -= 1;
        } else {
            // Late, on a slow machine: to write the same again is as good.
            child.call(id, &format!("put key-{id} {value}"))?;
        }
    }
    let written = began.elapsed();
    child.kill()?;
    fs::remove_dir(&snapshot)?;
    let log = measure(&place, keys)?;
    let mut child = Child::start(&place)?;
    child.ready()?;
    child.stop()?;
    let snapshot = measure(&place, keys)?;
    Ok(Report { keys, alone, written, log, snapshot })
}

fn measure(place: &Place, keys: u64) -> Result<Measured, Box<dyn Error>> {
    let mut best: Option<Measured> = None;
    for _ in 0..STARTS {
        // Each on the same files: a start changes them.
        let copy = Place { data: place.data.with_extension("copy"), ..place.clone() };
        copy_folder(&place.data, &copy.data)?;
        let bytes =
            size(&copy.data.join("log"))? + fs::metadata(copy.data.join("snap.db")).map_or(0, |file| file.len());
        let began = Instant::now();
        let mut child = Child::start(&copy)?;
        let ready = child.ready()?;
        let answer = child.ask(&format!("read key-{}", keys / 2))?;
        let served = began.elapsed();
        if !answer.starts_with("value v") {
            return Err(format!("a key is answered by {answer}\n{}", child.said()).into());
        }
        child.kill()?;
        fs::remove_dir_all(&copy.data)?;
        if best.as_ref().is_none_or(|best| served < best.served) {
            best = Some(Measured { bytes, ready, served });
        }
    }
    best.ok_or_else(|| "no start".into())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in from.read_dir()? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() { copy_folder(&entry, &target)? } else { fs::copy(&entry, &target).map(drop)? }
    }
    Ok(())
}

fn size(folder: &Path) -> std::io::Result<u64> {
    let files: Vec<PathBuf> =
        folder.read_dir()?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.iter().map(|file| fs::metadata(file).map(|file| file.len())).sum()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, alone, written, log, snapshot } = self;
        let seconds = Duration::as_secs_f64;
        writeln!(f, "one writer: {:.0} writes a second", f64::from(*alone) / seconds(&ALONE))?;
        writeln!(f, "{keys} keys, {VALUE_BYTES} bytes each, written in {:.1} s by {WINDOW} writers", seconds(written))?;
        for (what, Measured { bytes, ready, served }) in [("the log", log), ("the snapshot", snapshot)] {
            let mib = bytes >> 20;
            writeln!(
                f,
                "start on {what} ({mib} MiB): ready in {:.2} s, first read after {:.2} s",
                seconds(ready),
                seconds(served)
            )?;
        }
        Ok(())
    }
}
