//! Which module of the server may name which other: `crate::…` paths only lead downward.

use crate::{File, Tree, Violation};

/// The layers from the bottom. A module names lower layers and itself, never its own layer or a higher one.
pub const LAYERS: [&[&str]; 7] = [
    &["private"],
    &["clock", "config", "identity", "shutdown"],
    &["transport"],
    &["node"],
    &["link"],
    &["route"],
    &["gateway", "acme", "admin"],
];

/// The composition root: names everything, its own parts included, and is named by nobody below.
pub const ROOT: [&str; 8] = ["run", "serve", "dev", "store", "status", "args", "main", "lib"];

/// What a module must not name although it lies lower.
const HIDDEN: [(&str, &[&str]); 2] = [("gateway", &["node", "link"]), ("acme", &["link", "route"])];

const SOURCE: &str = "server/src/";

/// Finds every name of a module that its user may not know.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    // A test may hold two layers together, to see that they fit.
    for file in tree.rust(SOURCE).filter(|file| !file.is_test()) {
        let module = module_of(file);
        let Some(layer) = layer_of(module) else {
            let message =
                format!("`{module}` has no layer: give it one in tests/tidy/src/layer.rs and in ARCHITECTURE.md");
            violations.push(Violation { path: file.path.clone(), line: 1, message });
            continue;
        };
        for (line, named) in named_modules(file) {
            let refusal = match layer_of(&named) {
                Some(other) if layer == LAYERS.len() || named == module || other < layer => {
                    let hidden =
                        HIDDEN.iter().any(|(user, hidden)| *user == module && hidden.contains(&named.as_str()));
                    hidden.then_some("is hidden from it")
                }
                Some(other) if other == layer => Some("is of the same layer"),
                Some(_) => Some("lies above it"),
                None => None,
            };
            if let Some(reason) = refusal {
                let message = format!("`{module}` names `{named}`, which {reason}");
                violations.push(Violation { path: file.path.clone(), line, message });
            }
        }
    }
    violations
}

/// The index of a module's layer; [`LAYERS`]`.len()` for the composition root.
fn layer_of(module: &str) -> Option<usize> {
    if ROOT.contains(&module) {
        return Some(LAYERS.len());
    }
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top module that a file belongs to: its folder, or its own name.
fn module_of(file: &File) -> &str {
    let inside = file.path.strip_prefix(SOURCE).unwrap_or(&file.path);
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// How deep a file's own module lies below the crate: 1 for `gateway/mod.rs`, 2 for `gateway/sniff.rs`.
fn depth_of(file: &File) -> usize {
    let inside = file.path.strip_prefix(SOURCE).unwrap_or(&file.path);
    let parts = inside.split('/').count();
    if inside.ends_with("/mod.rs") || inside == "lib.rs" || inside == "main.rs" { parts - 1 } else { parts }
}

/// Every top module that a file names by `crate::` or by enough `super::`, with the line.
fn named_modules(file: &File) -> Vec<(usize, String)> {
    let ups = "super::".repeat(depth_of(file).max(1));
    let mut named = Vec::new();
    for start in ["crate::", "specter_server::", ups.as_str()] {
        for (at, _) in file.code.match_indices(start) {
            let before = file.code[..at].chars().next_back();
            if before.is_some_and(|character| character.is_alphanumeric() || character == '_' || character == ':') {
                continue;
            }
            let line = file.code[..at].matches('\n').count() + 1;
            named.extend(heads(&file.code[at + start.len()..]).into_iter().map(|head| (line, head)));
        }
    }
    named
}

/// The first names behind a path start: one, or each of a `{…}` group.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| {
        let text = text.trim_start();
        text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect::<String>()
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![word(rest)] };
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut item = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(word(&std::mem::take(&mut item))),
            _ => {}
        }
        if depth == 0 && character != ',' {
            item.push(character);
        }
    }
    heads.push(word(&item));
    heads.retain(|head| !head.is_empty());
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn a_name_from_above_is_caught() {
        assert_eq!(
            messages("server/src/link/accept.rs", "use std::fmt;\nuse crate::{config::Config, route::{self, pick}};\n"),
            ["server/src/link/accept.rs:2: `link` names `route`, which lies above it"]
        );
        assert_eq!(messages("server/src/node/mod.rs", "fn f() { crate::gateway::tls::x() }").len(), 1);
    }

    #[test]
    fn a_sibling_of_the_layer_is_caught() {
        assert_eq!(messages("server/src/gateway/http.rs", "use crate::admin::Page;").len(), 1);
        assert_eq!(messages("server/src/clock.rs", "use crate::config;").len(), 1);
    }

    #[test]
    fn a_way_around_by_super_is_caught() {
        assert_eq!(messages("server/src/link/accept.rs", "use super::super::gateway::x;").len(), 1);
        assert_eq!(messages("server/src/link/mod.rs", "use super::gateway::x;").len(), 1);
        assert_eq!(messages("server/src/link/accept.rs", "use super::registry;"), [""; 0]);
    }

    #[test]
    fn what_is_hidden_although_lower_is_caught() {
        assert_eq!(
            messages("server/src/gateway/mod.rs", "use crate::link::Registry;"),
            ["server/src/gateway/mod.rs:1: `gateway` names `link`, which is hidden from it"]
        );
    }

    #[test]
    fn a_module_without_a_layer_is_caught() {
        assert_eq!(messages("server/src/extra.rs", "").len(), 1);
    }

    #[test]
    fn downward_names_the_root_tests_and_comments_are_fine() {
        assert_eq!(messages("server/src/link/tests.rs", "use crate::gateway;"), [""; 0]);
        assert_eq!(messages("server/src/gateway/http.rs", "use crate::{route, config};\n// crate::admin\n"), [""; 0]);
        assert_eq!(messages("server/src/run.rs", "use crate::{args::Args, gateway, dev};"), [""; 0]);
        assert_eq!(messages("server/src/main.rs", "use specter_server::{run, dev};"), [""; 0]);
        assert_eq!(
            messages("server/src/route/pick.rs", "use crate::route::table; let a = \"crate::gateway\";"),
            [""; 0]
        );
    }
}
