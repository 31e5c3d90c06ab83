//! Every scenario in `scenario/`, played.

use std::path::{Path, PathBuf};

use sim::cluster::Scenario;

fn all() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_scenario_comes_true() {
    let mut untrue = Vec::new();
    for path in all() {
        let scenario = Scenario::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Some((violation, micros)) = scenario.play(false, false).violation {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            untrue.push(format!("{name}: after {} ms: {violation}", micros / 1000));
        }
    }
    assert!(
        untrue.is_empty(),
        "played again by `cargo run --release -p sim -- --scenario NAME`:\n{}",
        untrue.join("\n")
    );
}

#[test]
fn every_weakness_of_the_reference_has_a_scenario() {
    let texts: Vec<String> = all().iter().map(|path| std::fs::read_to_string(path).expect("it can be read")).collect();
    let names = |weakness: u32| {
        let word = format!("W{weakness}");
        texts.iter().any(|text| text.split(|c: char| !c.is_alphanumeric()).any(|found| found == word))
    };
    for weakness in (1..=10).chain(12..=17) {
        assert!(names(weakness), "no scenario is about W{weakness}");
    }
}
