//! Kills a store under load, again and again, and looks after each start whether what it acknowledged is there.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt, io,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Random,
    child::{Child, PATIENCE, Place},
    ledger::Ledger,
};

/// Calls under way at a time.
const WINDOW: usize = 64;

/// Longest life of a store under load.
const LIFE_MILLIS: u64 = 600;

/// How long the rounds go on.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// Whether writes are acknowledged before they are on the disk, which a kill must not take either.
    pub everysec: bool,
    /// So many kills,
    pub rounds: u64,
    /// but none after this time.
    pub at_most: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Kills.
    pub rounds: u64,
    /// Of them, before the store was ready.
    pub in_starts: u64,
    /// What the kills left half-made: how often each file was there that is there only for a moment.
    pub left: BTreeMap<&'static str, u64>,
    /// Calls.
    pub ledger: Ledger,
    /// All starts that went through.
    starts: Vec<Duration>,
    took: Duration,
}

/// Files that are there only while something is under way, and what that is.
const MOMENTS: [(&str, &str); 6] = [
    ("log/next.tmp", "a segment half-made"),
    ("snap.db-wal", "a snapshot open"),
    ("BOOT.tmp", "a start half-noted"),
    ("IDENTITY.tmp", "an identity half-written"),
    ("RESERVE.tmp", "a reserve half-made"),
    (".seg.tmp", "a segment half-written anew"),
];

/// Runs the rounds.
///
/// # Errors
/// What was lost or made up, or why a store did not start by itself.
pub fn run(program: &Path, plan: Plan) -> Result<Report, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let place = Place { everysec: plan.everysec, ..Place::prepare(program, folder.path())? };
    let (mut random, began) = (Random::seeded(plan.seed), Instant::now());
    let mut report = Report::default();
    // A start takes about so long; the first one is longer.
    let mut start = Duration::from_millis(100);
    while report.rounds < plan.rounds && began.elapsed() < plan.at_most {
        let mut child = Child::start(&place)?;
        if random.below(5) == 0 {
            child.lives_for(below(&mut random, start * 3 / 2));
            report.in_starts += 1;
        } else {
            start = child.ready()?;
            report.starts.push(start);
            let told =
                look(&mut child, &mut report.ledger).and_then(|()| load(&mut child, &mut report.ledger, &mut random));
            told.map_err(|wrong| format!("round {} of seed {}: {wrong}\n{}", report.rounds, plan.seed, child.said()))?;
        }
        child.kill()?;
        for (id, answer) in child.rest() {
            report.ledger.answered(id, &answer)?;
        }
        note_left(&place.data, &mut report.left)?;
        report.rounds += 1;
    }
    let mut child = Child::start(&place)?;
    report.starts.push(child.ready()?);
    look(&mut child, &mut report.ledger)?;
    child.stop()?;
    report.took = began.elapsed();
    Ok(report)
}

/// Asks for everything and compares it with the ledger.
///
/// # Errors
/// What is wrong.
pub fn look(child: &mut Child, ledger: &mut Ledger) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + PATIENCE;
    let mut questions: BTreeMap<_, _> = ledger.questions().into_iter().collect();
    while !questions.is_empty() {
        for (number, question) in &questions {
            child.call(*number, question)?;
        }
        child.flush()?;
        for _ in 0..questions.len() {
            let (number, answer) = child.answer(PATIENCE).ok_or("a key was not told in time")?;
            // On a slow machine an answer may be late.
            let is_late = matches!(answer.as_str(), "refused Unavailable" | "refused Unknown");
            if !is_late || Instant::now() > until {
                ledger.seen(number, &answer)?;
                questions.remove(&number);
            }
        }
    }
    Ok(())
}

/// Asks for changes until a moment that the store does not know.
fn load(child: &mut Child, ledger: &mut Ledger, random: &mut Random) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + below(random, Duration::from_millis(LIFE_MILLIS));
    loop {
        while ledger.open() < WINDOW {
            let Some((id, call)) = ledger.next(random) else { break };
            child.call(id, &call)?;
        }
        child.flush()?;
        match child.answer(until.saturating_duration_since(Instant::now())) {
            Some((id, answer)) => ledger.answered(id, &answer)?,
            None if Instant::now() >= until => return Ok(()),
            None => return Err("the store ended by itself".into()),
        }
    }
}

fn below(random: &mut Random, time: Duration) -> Duration {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random.below(micros.max(1)))
}

fn note_left(data: &Path, left: &mut BTreeMap<&'static str, u64>) -> io::Result<()> {
    let mut names = Vec::new();
    for folder in ["", "log/"] {
        // A first start may not have come to it.
        let Ok(entries) = data.join(folder).read_dir() else { continue };
        for entry in entries {
            names.push(format!("{folder}{}", entry?.file_name().display()));
        }
    }
    for (name, what) in MOMENTS {
        if names.iter().any(|found| found.ends_with(name)) {
            *left.entry(what).or_default() += 1;
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, in_starts, left, ledger, starts, took } = self;
        writeln!(f, "{rounds} kills in {:.0} s, {in_starts} of them in a start", took.as_secs_f64())?;
        for (what, count) in left {
            writeln!(f, "  {count} left {what}")?;
        }
        writeln!(f, "{} writes were acknowledged: none is missing", ledger.acknowledged)?;
        let (done, undone) = (ledger.done_unheard, ledger.undone);
        writeln!(f, "{} were not: {done} are there as a whole, {undone} not at all", done + undone)?;
        let mut starts = starts.clone();
        starts.sort_unstable();
        let at = |part: usize| starts.get((starts.len() * part / 100).min(starts.len().saturating_sub(1)));
        let [half, most] = [at(50), at(100)].map(|time| time.copied().unwrap_or_default().as_secs_f64() * 1e3);
        writeln!(f, "{} starts: half within {half:.0} ms, all within {most:.0} ms", starts.len())
    }
}
