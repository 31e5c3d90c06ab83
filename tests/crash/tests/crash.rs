//! Some rounds of what the program `crash` does at length.

use std::{path::Path, time::Duration};

use crash::{first, full, kill};

const PROGRAM: &str = env!("CARGO_BIN_EXE_crash");

#[test]
fn nothing_acknowledged_is_lost_by_a_kill_under_load() {
    killed(kill::Plan { seed: 1, everysec: false, rounds: 1000, at_most: Duration::from_secs(20) });
}

#[test]
fn a_kill_takes_nothing_that_is_not_on_the_disk_yet() {
    killed(kill::Plan { seed: 2, everysec: true, rounds: 1000, at_most: Duration::from_secs(5) });
}

fn killed(plan: kill::Plan) {
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

#[test]
fn a_store_goes_on_with_a_full_disk_and_a_broken_snapshot() {
    if full::way().is_none() {
        assert!(std::env::var_os("CI").is_none(), "no disk can be made: neither unshare nor sudo works here");
        eprintln!("skipped: no disk can be made, since neither unshare nor sudo works here");
        return;
    }
    eprint!("{}", full::run(Path::new(PROGRAM), full::Kind::Tmpfs).unwrap_or_else(|wrong| panic!("{wrong}")));
}
