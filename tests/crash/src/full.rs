//! Fills the disk of a store, breaks its snapshot, kills it meanwhile, and looks whether it goes on as promised.
//!
//! The disk is a small file system of its own, in a name space that ends with the test.

use std::{
    error::Error,
    ffi::OsStr,
    fmt, fs,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Random,
    child::{Child, PATIENCE, Place},
    kill::look,
    ledger::Ledger,
};

/// Size of the disk: reserve, three segments, snapshot.
const DISK_MIB: u64 = 96;

/// A log of this length, with what is prepared of its last segment, is due to be written down.
const LOG_BYTES: u64 = 16 << 20;

/// What a start takes of the disk for a moment: the last segment, written anew in place of the old one. The snapshot of all
/// keys at their longest takes far more.
const START_BYTES: u64 = 9 << 20;

/// What kind of disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// In memory; any user may make one.
    Tmpfs,
    /// In a file; for root.
    Ext4,
}

/// What was seen.
#[derive(Debug)]
pub struct Report {
    ledger: Ledger,
    /// How long after room was made the next write was taken.
    noticed: Duration,
}

/// Starts a program that sees mounts which nobody else sees: as root, as anybody where the system allows it, as an
/// administrator.
const WAYS: [&[&str]; 3] = [
    &["unshare", "--mount"],
    &["unshare", "--user", "--map-root-user", "--mount"],
    &["sudo", "-n", "unshare", "--mount"],
];

/// The way that is open to this user, or none.
pub fn way() -> Option<&'static [&'static str]> {
    let works = |way: &&[&str]| {
        let mut command = private(way, "mount");
        command.args(["-t", "tmpfs", "tmpfs", "/tmp"]).output().is_ok_and(|output| output.status.success())
    };
    WAYS.into_iter().find(works)
}

/// Runs [`inside`] on a disk of its own, in another process.
///
/// # Errors
/// What that process found wrong.
pub fn run(program: &Path, kind: Kind) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mount = folder.path().join("disk");
    fs::create_dir(&mount)?;
    let way = way().ok_or("this user may not mount anything, not even out of the sight of others")?;
    let mut command = private(way, program);
    command.arg("full-inside");
    if kind == Kind::Ext4 {
        command.arg("--ext4");
    }
    let output = command.arg(&mount).output()?;
    let [said, wrong] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(said) } else { Err(format!("{said}{wrong}").into()) }
}

fn private(way: &[&str], program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(way[0]);
    command.args(&way[1..]).arg(program);
    command
}

/// Makes the disk and plays the whole story on it.
///
/// # Errors
/// What was lost, or did not go on.
pub fn inside(program: &Path, mount: &Path, kind: Kind) -> Result<Report, Box<dyn Error>> {
    let size = format!("{DISK_MIB}m");
    match kind {
        Kind::Tmpfs => must("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], mount)?,
        Kind::Ext4 => {
            let image = mount.with_extension("image");
            must("truncate", &["-s", &size], &image)?;
            must("mkfs.ext4", &["-q", "-m", "0"], &image)?;
            must("mount", &["-o", "loop", image.to_str().ok_or("a path that is no text")?], mount)?;
        }
    }
    let certs = mount.parent().ok_or("a mount point in a folder")?;
    let place = Place { data: mount.join("data"), ..Place::prepare(program, certs)? };
    let mut story = Story {
        snapshot: place.data.join("snap.db"),
        child: Child::start(&place)?,
        place,
        filler: mount.join("filler"),
        ledger: Ledger::default(),
        random: Random::seeded(1),
    };
    let noticed = story.play().map_err(|wrong| format!("{wrong}\n{}", story.child.said()))?;
    Ok(Report { ledger: story.ledger, noticed })
}

fn must(program: &str, arguments: &[&str], last: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(program).args(arguments).arg(last).status()?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed: {status}").into()) }
}

struct Story {
    place: Place,
    child: Child,
    snapshot: PathBuf,
    filler: PathBuf,
    ledger: Ledger,
    random: Random,
}

impl Story {
    fn play(&mut self) -> Result<Duration, Box<dyn Error>> {
        self.child.ready()?;
        // No snapshot can be written: the log keeps everything, and it is said.
        fs::create_dir(&self.snapshot)?;
        self.ledger.large = true;
        while self.log_bytes()? < LOG_BYTES {
            self.write(100)?;
        }
        self.says("the log was not written down")?;
        look(&mut self.child, &mut self.ledger)?;
        self.none_refused("a broken snapshot")?;

        // Room for a start, and not for the snapshot that is due at once.
        self.fill(START_BYTES)?;
        self.child.kill()?;
        fs::remove_dir(&self.snapshot)?;
        self.start()?;
        self.says("disk is full")?;
        self.write(20)?;
        self.none_refused("a snapshot that has no room")?;

        self.fill_until_refused()?;
        if self.place.data.join("RESERVE").exists() {
            return Err("the reserve is kept although records had no room".into());
        }
        look(&mut self.child, &mut self.ledger)?;
        self.child.kill()?;
        for (id, answer) in self.child.rest() {
            self.ledger.answered(id, &answer)?;
        }
        self.start()?;

        self.fill_until_refused()?;
        let freed = Instant::now();
        fs::remove_file(&self.filler)?;
        while !self.ledger.next_is_done(&mut self.child, &mut self.random)? {
            if freed.elapsed() > PATIENCE {
                return Err("the room that was made is not noticed".into());
            }
        }
        let noticed = freed.elapsed();
        self.write(100)?;
        self.child.kill()?;
        self.start()?;
        Ok(noticed)
    }

    /// Starts again and looks.
    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        self.child = Child::start(&self.place)?;
        self.child.ready()?;
        look(&mut self.child, &mut self.ledger)
    }

    fn fill_until_refused(&mut self) -> Result<(), Box<dyn Error>> {
        let (enough, until) = (self.ledger.refused + 20, Instant::now() + PATIENCE);
        self.fill(0)?;
        while self.ledger.refused < enough {
            if Instant::now() > until {
                return Err("writes are still taken on a full disk".into());
            }
            self.write(20)?;
        }
        Ok(())
    }

    fn write(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..calls {
            let Some((id, call)) = self.ledger.next(&mut self.random) else { break };
            self.child.call(id, &call)?;
        }
        self.child.flush()?;
        while self.ledger.open() > self.ledger.unheard() {
            let (id, answer) = self.child.answer(PATIENCE).ok_or("a write was not answered in time")?;
            self.ledger.answered(id, &answer)?;
        }
        Ok(())
    }

    fn none_refused(&self, when: &str) -> Result<(), Box<dyn Error>> {
        match self.ledger.refused {
            0 => Ok(()),
            refused => Err(format!("{refused} writes were refused because of {when}").into()),
        }
    }

    /// Waits until the child has said so since its start.
    fn says(&mut self, words: &str) -> Result<(), Box<dyn Error>> {
        let until = Instant::now() + PATIENCE;
        while !self.child.said().contains(words) {
            if Instant::now() > until {
                return Err(format!("the node does not say that {words}").into());
            }
            // An answer to wait for, in place of a clock.
            self.child.ask("read v0")?;
        }
        Ok(())
    }

    fn log_bytes(&self) -> io::Result<u64> {
        let entries = self.place.data.join("log").read_dir()?;
        entries.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }

    /// Takes all room but so much.
    fn fill(&self, leave_bytes: u64) -> io::Result<()> {
        let mut filler = File::options().append(true).create(true).open(&self.filler)?;
        for size in [1 << 20, 4 << 10, 1] {
            let zeros = vec![0; size];
            while filler.write_all(&zeros).is_ok() {}
        }
        filler.set_len(filler.metadata()?.len().saturating_sub(leave_bytes))?;
        filler.sync_all()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledger, noticed } = self;
        writeln!(f, "{} writes were acknowledged: none is missing", ledger.acknowledged)?;
        writeln!(f, "{} were refused because the disk was full", ledger.refused)?;
        writeln!(f, "room was noticed after {:.1} s", noticed.as_secs_f64())
    }
}
