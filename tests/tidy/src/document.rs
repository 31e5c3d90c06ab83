//! Every path that README and ARCHITECTURE name exists, so that they never describe a tree that is gone.

use crate::{Tree, Violation};
use std::path::Path;

/// The documents that are checked.
pub const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// Folders that a path in a document may be relative to: the root, and the server's modules as the walks name them.
const BASES: [&str; 3] = ["", "server/src/", "client-lite/src/"];

/// Finds paths that lead nowhere. `exists` tells whether a path relative to the root exists.
///
/// Links are always checked. Other words are taken for a path if they hold a slash and their first part is a folder that
/// exists; `{a,b}` stands for both, and `.rs` may be left out.
pub fn check(tree: &Tree, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.files.iter().filter(|file| DOCUMENTS.contains(&file.path.as_str())) {
        for (index, line) in file.text.lines().enumerate() {
            for path in links(line).filter(|path| !exists(path)).chain(dead_words(line, &exists)) {
                let message = format!("`{path}` does not exist");
                violations.push(Violation { path: file.path.clone(), line: index + 1, message });
            }
        }
    }
    violations
}

/// Whether `path` exists below `root`.
pub fn exists_below(root: &Path, path: &str) -> bool {
    root.join(path).exists()
}

/// The relative targets of a line's links.
fn links(line: &str) -> impl Iterator<Item = String> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then(|| target.to_owned())
    })
}

fn dead_words(line: &str, exists: &impl Fn(&str) -> bool) -> Vec<String> {
    let is_path = |character: char| character.is_ascii_alphanumeric() || "._-/{},".contains(character);
    let mut dead = Vec::new();
    for word in line.split(|character| !is_path(character)) {
        let word = word.trim_end_matches(['.', ',', '/']);
        let Some((first, rest)) = word.split_once('/') else { continue };
        if first.is_empty() || rest.is_empty() || line.contains(&format!("//{word}")) {
            continue;
        }
        let bases: Vec<_> = BASES.iter().filter(|base| exists(&format!("{base}{first}/"))).collect();
        for path in expand(word) {
            let found = |base: &&&str| exists(&format!("{base}{path}")) || exists(&format!("{base}{path}.rs"));
            if !bases.is_empty() && !bases.iter().any(found) {
                dead.push(path);
            }
        }
    }
    dead
}

/// Writes out one `{a,b}` group.
fn expand(word: &str) -> Vec<String> {
    match word.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?))) {
        Some((head, (group, tail))) => group.split(',').map(|item| format!("{head}{item}{tail}")).collect(),
        None => vec![word.replace(['{', '}', ','], "")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(text: &str) -> Vec<String> {
        let real = [
            "LICENSE-MIT",
            "server/",
            "server/src/gateway/",
            "server/src/gateway/sniff.rs",
            "server/src/gateway/tls.rs",
        ];
        let tree = Tree::of(&[("README.md", text)]);
        check(&tree, |path| real.contains(&path)).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_link_to_nowhere_is_caught() {
        assert_eq!(dead("see [the map](ARCHITEKTUR.md#map)"), ["`ARCHITEKTUR.md` does not exist"]);
        assert_eq!(dead("[licence](LICENSE-MIT), [elsewhere](https://example.com/a), [below](#below)"), [""; 0]);
    }

    #[test]
    fn a_path_to_nowhere_is_caught() {
        assert_eq!(dead("visitor → gateway/snif → on"), ["`gateway/snif` does not exist"]);
        assert_eq!(dead("`server/src/gone.rs`"), ["`server/src/gone.rs` does not exist"]);
        assert_eq!(dead("gateway/{sniff,tls,http}"), ["`gateway/http` does not exist"]);
    }

    #[test]
    fn what_exists_and_what_is_no_path_is_fine() {
        assert_eq!(dead("gateway/sniff, `gateway/{sniff,tls}`, application/grpc, and/or, http://server/x"), [""; 0]);
    }
}
