//! Kills the start that makes a data directory, at any of its moments.

use std::{error::Error, fmt, path::Path, time::Duration};

use crate::{
    Random,
    child::{Child, Place},
};

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Directories.
    pub directories: u64,
    /// Kills before the store was ready.
    pub kills: u64,
    /// What the kills left: the files and folders in the directory, and how often.
    left: std::collections::BTreeMap<String, u64>,
}

/// Most kills of one directory before it is let go on.
const KILLS: u64 = 3;

/// Makes so many directories, each by a start that is killed and by the one after it.
///
/// # Errors
/// A start that does not go through by itself, or a write that does not last.
pub fn run(program: &Path, seed: u64, directories: u64) -> Result<Report, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut place = Place::prepare(program, folder.path())?;
    let (mut random, mut report) = (Random::seeded(seed), Report::default());
    let mut whole = Duration::from_millis(200);
    for number in 0..directories {
        place.data = folder.path().join(format!("data-{number}"));
        for _ in 0..random.below(KILLS + 1) {
            let mut child = Child::start(&place)?;
            let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
            child.lives_for(Duration::from_micros(random.below(micros.max(1))));
            child.kill()?;
            report.kills += 1;
            *report.left.entry(listing(&place.data)).or_default() += 1;
        }
        let mut child = Child::start(&place)?;
        let took = child.ready()?;
        if number == 0 || !place.data.join("snap.db").exists() {
            whole = took.max(whole / 2);
        }
        expect(&mut child, "put key value", "done")?;
        child.kill()?;
        let mut child = Child::start(&place)?;
        child.ready()?;
        expect(&mut child, "read key", "value value")?;
        child.kill()?;
        std::fs::remove_dir_all(&place.data)?;
        report.directories += 1;
    }
    Ok(report)
}

fn expect(child: &mut Child, call: &str, wanted: &str) -> Result<(), Box<dyn Error>> {
    let answer = child.ask(call)?;
    if answer == wanted { Ok(()) } else { Err(format!("{call} is answered by {answer}\n{}", child.said()).into()) }
}

fn listing(data: &Path) -> String {
    let names = |folder: &str| {
        let entries = data.join(folder).read_dir().ok()?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| format!("{folder}{}", entry.file_name().display())).collect();
        names.sort_unstable();
        Some(names.join(" "))
    };
    match (names(""), names("log/")) {
        (None, _) => "nothing".to_owned(),
        (Some(top), log) => format!("{top} {}", log.unwrap_or_default()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} first starts were killed in {} directories; every one started by itself",
            self.kills, self.directories
        )?;
        for (left, count) in &self.left {
            writeln!(f, "  {count} left {left}")?;
        }
        Ok(())
    }
}
