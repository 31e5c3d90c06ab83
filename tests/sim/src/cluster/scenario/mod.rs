//! Scenarios: what happens to a cluster, written down line by line, and what must come of it.
//!
//! One thing happens on each line, in order; `at 10s` before it waits until then. What a line may say is listed at
//! [`Action`]. When the last line is done, all that is broken is repaired, and the cluster must become one again, answer
//! every client, and hold the same on all replicas, as at the end of every world.
//!
//! - `words`: a line, word by word, with errors that say what was wanted.
//! - `parse`: what each line means.
//! - `play`: what each line does; `expect`: whether what should be so is so.

mod expect;
mod parse;
mod play;
mod words;

use std::path::Path;
use std::time::Duration;

use thiserror::Error;

pub(super) use parse::{Action, Request, Setup, Step, Truth, Who};

use crate::{Outcome, Violation};

/// A scenario that can be played.
#[derive(Clone, Debug)]
pub struct Scenario {
    setup: Setup,
    steps: Vec<Step>,
}

/// Why a scenario could not be read, or what in it did not come true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the scenario {0} cannot be read: {1}")]
    File(String, String),
    /// A line has no meaning.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, counted from one.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// Which line has no meaning, and what was wanted.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::scenario(text)
    }

    /// Reads the scenario in a file.
    ///
    /// # Errors
    /// Why it cannot be read, or which line has no meaning.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Error::File(name, error.to_string()))?;
        Self::parse(&text)
    }

    /// Plays it to its end, or to the first broken promise or expectation; prints what happens when it is asked to.
    pub fn play(&self, keeps_identity: bool, tells: bool) -> Outcome {
        play::play(self, keeps_identity, tells)
    }
}

/// What stops a scenario.
#[derive(Debug)]
pub(super) enum Stop {
    /// A promise was broken.
    Broken(Violation),
    /// Something did not come true.
    Untrue(String),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

fn micros(span: Duration) -> u64 {
    super::swarm::micros(span)
}
