//! Some rounds of what the program `crash` does at length.

use std::{path::Path, time::Duration};

use crash::{first, kill};

const PROGRAM: &str = env!("CARGO_BIN_EXE_crash");

#[test]
fn nothing_acknowledged_is_lost_by_a_kill_under_load() {
    let plan = kill::Plan { seed: 1, rounds: 1000, at_most: Duration::from_secs(20) };
    let report = kill::run(Path::new(PROGRAM), plan).unwrap_or_else(|wrong| panic!("{wrong}"));
    eprint!("{report}");
    assert!(report.rounds > 0 && report.ledger.acknowledged > 0);
}

#[test]
fn a_first_start_that_is_killed_is_made_good_by_the_next() {
    let report = first::run(Path::new(PROGRAM), 1, 10).unwrap_or_else(|wrong| panic!("{wrong}"));
    eprint!("{report}");
    assert!(report.kills > 0);
}
