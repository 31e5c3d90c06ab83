//! Names of folders, work left over, lengths, and what is never written.

use crate::{File, Tree, Violation};

/// Names that only say that nobody found a name.
const NAMELESS: [&str; 6] = ["util", "utils", "common", "helpers", "shared", "misc"];

/// Most lines of code in a file: blank, comment and test lines are not counted.
pub const LENGTH_LINES: usize = 400;

/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

/// A piece of code that is never written, where it is looked for, and what to write instead.
const NEVER: [(&str, Place, &str); 7] = [
    ("todo!(", Place::All, "finish it or leave it out"),
    ("unimplemented!(", Place::All, "finish it or leave it out"),
    ("thread::sleep(", Place::All, "wait for an event with a deadline"),
    ("unbounded_channel", Place::All, "give the channel a capacity and say what happens when it is full"),
    ("tokio::spawn(", Place::Product, "use the task tracker, so that shutdown waits for the task"),
    ("env::var(", Place::OutsideArgs, "read the environment in args.rs"),
    ("env::var_os(", Place::OutsideArgs, "read the environment in args.rs"),
];

enum Place {
    All,
    Product,
    OutsideArgs,
}

/// Finds nameless folders, work left over, files that are too long, and code that is never written.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for file in &tree.files {
        nameless(file, &mut violations);
    }
    for file in tree.rust("") {
        left_over(file, &mut violations);
        never(file, &mut violations);
        too_long(file, &mut violations);
    }
    violations
}

fn nameless(file: &File, violations: &mut Vec<Violation>) {
    for part in file.path.split('/') {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if NAMELESS.contains(&name) {
            let message = format!("`{name}` names nothing: say what it holds");
            violations.push(Violation { path: file.path.clone(), line: 0, message });
        }
    }
}

fn left_over(file: &File, violations: &mut Vec<Violation>) {
    // Spelled in halves, so that this file passes its own rule.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat(), ["HA", "CK"].concat()];
    for (index, line) in file.text.lines().enumerate() {
        let Some((_, comment)) = line.split_once("//") else { continue };
        let words = || comment.split(|character: char| !character.is_alphanumeric());
        if let Some(mark) = marks.iter().find(|mark| words().any(|word| word == mark.as_str())) {
            let message = format!("{mark}: finish it, or file an issue and leave it out of the code");
            violations.push(Violation { path: file.path.clone(), line: index + 1, message });
        }
    }
}

fn never(file: &File, violations: &mut Vec<Violation>) {
    let product = file.product_lines();
    let outside_args = !["args.rs", "main.rs", "build.rs"].iter().any(|name| file.path.ends_with(name));
    for (code, place, instead) in &NEVER {
        let found = match place {
            Place::All => file.code.lines().position(|line| line.contains(code)).map(|index| index + 1),
            Place::Product => product.iter().find(|(_, line)| line.contains(code)).map(|(number, _)| *number),
            Place::OutsideArgs if !outside_args => None,
            Place::OutsideArgs => product.iter().find(|(_, line)| line.contains(code)).map(|(number, _)| *number),
        };
        if let Some(line) = found {
            violations.push(Violation { path: file.path.clone(), line, message: format!("`{code}`: {instead}") });
        }
    }
}

fn too_long(file: &File, violations: &mut Vec<Violation>) {
    let lines = file.product_lines().iter().filter(|(_, line)| !line.trim().is_empty()).count();
    if lines > LENGTH_LINES && !LONGER.iter().any(|(path, _)| *path == file.path) {
        let message = format!("{lines} lines of code, more than {LENGTH_LINES}: split it by phase of life");
        violations.push(Violation { path: file.path.clone(), line: 0, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_folder_or_module_without_a_name_is_caught() {
        assert_eq!(count("server/src/util/mod.rs", ""), 1);
        assert_eq!(count("server/src/link/helpers.rs", ""), 1);
        assert_eq!(count("server/src/link/utility.rs", ""), 0);
    }

    #[test]
    fn work_left_over_is_caught() {
        assert_eq!(count("a/src/b.rs", &format!("fn f() {{}} // {}: later", ["TO", "DO"].concat())), 1);
        assert_eq!(count("a/src/b.rs", &format!("fn f() {{ {}!() }}", "todo")), 1);
        assert_eq!(count("a/src/b.rs", &format!("fn f() {{ {}!() }}", "unimplemented")), 1);
    }

    #[test]
    fn what_is_never_written_is_caught() {
        assert_eq!(count("a/src/tests.rs", "fn f() { std::thread::sleep(x) }"), 1);
        assert_eq!(count("a/src/b.rs", "fn f() { mpsc::unbounded_channel() }"), 1);
        assert_eq!(count("a/src/b.rs", "fn f() { tokio::spawn(x) }"), 1);
        assert_eq!(count("a/src/tests.rs", "fn f() { tokio::spawn(x) }"), 0);
        assert_eq!(count("a/src/b.rs", "fn f() { std::env::var(x) }"), 1);
        assert_eq!(count("a/src/args.rs", "fn f() { std::env::var(x) }"), 0);
    }

    #[test]
    fn a_file_beyond_the_length_is_caught_but_comments_and_tests_are_free() {
        let code = "let a = 1;\n".repeat(LENGTH_LINES);
        assert_eq!(count("a/src/b.rs", &format!("{code}let b = 1;\n")), 1);
        let padded = format!("{code}\n// comment\n#[cfg(test)]\nmod tests {{\n let b = 1;\n}}\n");
        assert_eq!(count("a/src/b.rs", &padded), 0);
    }
}
