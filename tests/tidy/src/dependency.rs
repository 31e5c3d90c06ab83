//! Which crate may depend on which, and where a library may be named at all.

use crate::{Tree, Violation};

/// Our own crates that a crate's manifest may name, by the folder of the crate.
const CRATES: [(&str, &[&str]); 12] = [
    ("wire", &[]),
    ("wire/carry", &[]),
    ("server/dht", &["specter-wire"]),
    ("server/storage", &[]),
    ("client-lite", &["specter-wire", "specter-carry"]),
    ("server", &["specter-wire", "specter-carry", "specter-dht", "specter-storage", "client-lite"]),
    ("tests/crash", &["specter-server"]),
    ("tests/e2e", &["specter-wire"]),
    ("tests/bench", &["specter-wire"]),
    ("tests/cluster", &[]),
    ("tests/sim", &["specter-dht", "specter-storage"]),
    ("tests/tidy", &[]),
];

const OWN: [&str; 6] =
    ["specter-wire", "specter-carry", "specter-dht", "specter-storage", "client-lite", "specter-server"];

/// A library, the folder it is watched in, and the files or folders in it that may name it.
const LIBRARIES: [(&str, &str, &[&str]); 9] = [
    ("rusqlite", "server/src/", &[]),
    ("rusqlite", "server/storage/src/", &["sqlite"]),
    ("specter_storage", "server/src/", &["node", "admin", "dev/folder"]),
    // `splice` moves quinn's chunks without a copy, which no trait of ours could say better.
    ("quinn", "server/src/", &["transport", "link", "gateway/listen", "gateway/http3", "gateway/splice"]),
    ("hyper", "server/src/", &["gateway", "admin", "dev"]),
    ("hyper_util", "server/src/", &["gateway", "admin", "dev"]),
    ("specter_dht", "server/src/", &["node", "admin"]),
    ("client_lite", "server/src/", &["dev"]),
    ("hyper", "client-lite/src/", &["api"]),
];

/// Crates that never enter the tree, as `.deny.toml` has them with the reasons: `cargo deny` needs a network, this does not.
const BANNED: [&str; 8] =
    ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "rustls-pemfile", "serde_yaml", "serde_yml", "eff-wordlist"];

/// Crates that may stand in the lock file twice: those of `.deny.toml`, and `embedded-io`, of which postcard names two
/// versions as options that nobody switches on.
const TWICE: [&str; 10] = [
    "embedded-io",
    "getrandom",
    "hashbrown",
    "r-efi",
    "rand",
    "rand_core",
    "syn",
    "toml_datetime",
    "windows-sys",
    "winnow",
];

/// Finds edges between crates that the architecture does not have, and libraries named outside their place.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = crate_edges(tree);
    violations.extend(locked(tree));
    for (library, folder, allowed) in LIBRARIES {
        for file in tree.rust(folder) {
            let inside = &file.path[folder.len()..];
            if allowed.iter().any(|place| is_within(inside, place)) {
                continue;
            }
            if let Some(line) = file.code.lines().position(|line| names(line, library)) {
                let place = if allowed.is_empty() { "its own crate".to_owned() } else { allowed.join(", ") };
                let message = format!("`{library}` is named outside {place}");
                violations.push(Violation { path: file.path.clone(), line: line + 1, message });
            }
        }
    }
    violations
}

fn crate_edges(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        let allowed = CRATES.iter().find(|(known, _)| *known == folder).map(|(_, allowed)| *allowed);
        let mut in_dependencies = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
                continue;
            }
            let name = line.split(['=', '.', ' ']).next().unwrap_or(line);
            if !in_dependencies || !OWN.contains(&name) || allowed.is_some_and(|allowed| allowed.contains(&name)) {
                continue;
            }
            let message = format!("`{folder}` may not depend on `{name}`");
            violations.push(Violation { path: file.path.clone(), line: index + 1, message });
        }
    }
    violations
}

/// Finds banned crates and second versions in the lock file.
fn locked(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.files.iter().filter(|file| file.path == "Cargo.lock") {
        let mut before = "";
        for (index, line) in file.text.lines().enumerate() {
            let Some(name) = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"')) else { continue };
            let refusal = if BANNED.contains(&name) {
                Some("is banned")
            } else if name == before && !TWICE.contains(&name) {
                Some("is in the tree in two versions")
            } else {
                None
            };
            if let Some(reason) = refusal {
                let message = format!("`{name}` {reason}: see .deny.toml");
                violations.push(Violation { path: file.path.clone(), line: index + 1, message });
            }
            before = name;
        }
    }
    violations
}

/// Whether `path` is the module `place`: `place.rs`, or anything below `place/`.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Whether a line of code holds `word` as a whole word that starts a path or is imported.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let before = line[..at].trim_end();
        let after = &line[at + word.len()..];
        let whole = !line[..at].chars().next_back().is_some_and(is_word) && !after.chars().next().is_some_and(is_word);
        whole
            && !before.ends_with('.')
            && (after.starts_with("::") || before.ends_with("use") || after.starts_with(" as "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn an_edge_the_architecture_lacks_is_caught() {
        assert_eq!(count("client-lite/Cargo.toml", "[dependencies]\nspecter-server.workspace = true\n"), 1);
        assert_eq!(count("tests/e2e/Cargo.toml", "[dev-dependencies]\nclient-lite = { path = \"../x\" }\n"), 1);
        assert_eq!(count("tests/new/Cargo.toml", "[dependencies]\nspecter-wire.workspace = true\n"), 1);
        assert_eq!(count("server/Cargo.toml", "[dependencies]\nspecter-wire.workspace = true\nclient-lite = {}\n"), 0);
        assert_eq!(count("client-lite/Cargo.toml", "[[bin]]\nname = \"client-lite\"\n"), 0);
    }

    #[test]
    fn a_banned_crate_and_a_second_version_are_caught() {
        let lock =
            |names: &[&str]| names.iter().map(|name| format!("[[package]]\nname = \"{name}\"\n\n")).collect::<String>();
        assert_eq!(count("Cargo.lock", &lock(&["openssl", "serde"])), 1);
        assert_eq!(count("Cargo.lock", &lock(&["serde", "serde", "syn", "syn"])), 1);
        assert_eq!(count("Cargo.lock", &lock(&["serde", "serde_derive"])), 0);
    }

    #[test]
    fn a_library_outside_its_place_is_caught() {
        assert_eq!(count("server/src/route/pick.rs", "use quinn::Connection;"), 1);
        assert_eq!(count("server/src/node/mod.rs", "fn f(c: &rusqlite::Connection) {}"), 1);
        assert_eq!(count("server/src/link/mod.rs", "use hyper::Request;"), 1);
        assert_eq!(count("server/src/run.rs", "use client_lite as client;"), 1);
        assert_eq!(count("server/src/gateway/listener.rs", "use quinn;"), 1);
    }

    #[test]
    fn a_library_in_its_place_is_fine() {
        assert_eq!(count("server/src/gateway/listen/mod.rs", "use quinn::Endpoint;"), 0);
        assert_eq!(count("server/storage/src/sqlite/tests.rs", "use rusqlite::Connection;"), 0);
        assert_eq!(count("server/src/dev/page.rs", "use hyper::Response;"), 0);
        assert_eq!(count("server/src/route/pick.rs", "// quinn::Connection\nlet a = \"quinn::x\";"), 0);
    }
}
