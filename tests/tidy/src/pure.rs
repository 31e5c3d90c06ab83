//! Files that decide: they take `now` as an argument, draw no random numbers and do no IO.
//!
//! A file says so in its module doc: it starts with `//! Pure:`, or holds the word `PURE`.

use crate::{Tree, Violation};

/// Files that must carry the marker if they exist.
const REQUIRED: [&str; 11] = [
    "client-lite/src/session/mod.rs",
    "client-lite/src/links/mod.rs",
    "client-lite/src/links/known.rs",
    "client-lite/src/backoff.rs",
    "server/src/link/session.rs",
    "server/src/route/pick.rs",
    "server/src/gateway/sniff.rs",
    "server/src/gateway/headers.rs",
    "server/src/node/register.rs",
    "server/src/acme/order.rs",
    "server/dht/src/node.rs",
];

/// What a pure file must not name outside its tests.
const FORBIDDEN: [&str; 9] = [
    "tokio",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "SystemRandom",
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "env::var",
];

/// Finds pure files that are not, and files that should say that they are.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in tree.rust("") {
        let marked = is_marked(&file.text);
        if !marked && REQUIRED.contains(&file.path.as_str()) {
            let message = "this file decides; its module doc must say so by `Pure:` or `PURE`".to_owned();
            violations.push(Violation { path: file.path.clone(), line: 1, message });
        }
        if !marked {
            continue;
        }
        for (line, code) in file.product_lines() {
            for name in FORBIDDEN.iter().filter(|name| code.contains(*name)) {
                let message = format!("a pure file names `{name}`: take it as an argument");
                violations.push(Violation { path: file.path.clone(), line, message });
            }
        }
    }
    violations
}

fn is_marked(text: &str) -> bool {
    let mut doc = text.lines().take_while(|line| line.starts_with("//!"));
    doc.any(|line| line.starts_with("//! Pure:") || line.contains("PURE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_and_clocks_in_a_pure_file_are_caught() {
        for planted in ["use tokio::net;", "let now = Instant::now();", "SystemTime::now()", "rand::random()"] {
            let text = format!(
                "//! Waits.\n//! PURE: now is an argument.\n{planted}\n#[cfg(test)]\nmod tests {{\n use tokio;\n}}\n"
            );
            let violations = check(&Tree::of(&[("client-lite/src/backoff.rs", &text)]));
            assert_eq!(violations.len(), 1, "{planted}: {violations:?}");
            assert_eq!(violations[0].line, 3);
        }
    }

    #[test]
    fn a_file_that_must_be_pure_and_does_not_say_so_is_caught() {
        assert_eq!(check(&Tree::of(&[("server/src/route/pick.rs", "//! Picks.\n")])).len(), 1);
    }

    #[test]
    fn other_files_may_do_io() {
        assert_eq!(check(&Tree::of(&[("server/src/link/accept.rs", "//! Accepts.\nuse tokio::net;\n")])).len(), 0);
    }
}
