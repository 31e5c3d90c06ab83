//! Files as text, and Rust text without what only looks like code.

use std::{fs, io, path::Path};

/// The text files of the repository.
#[derive(Default)]
pub struct Tree {
    /// In order of their paths.
    pub files: Vec<File>,
}

/// One text file.
pub struct File {
    /// Relative to the root, with forward slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Rust files only: the text with comments and the insides of literals blanked out, line for line.
    pub code: String,
}

impl Tree {
    /// Reads every `.rs`, `.toml`, `.md` and `.lock` file below `root`, build output and version control left out.
    ///
    /// # Errors
    /// The first file or folder that cannot be read, with its path.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// Makes a tree of paths and texts.
    pub fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| File::new((*path).to_owned(), (*text).to_owned())).collect() }
    }

    /// The Rust files below a folder; the folder ends with a slash or is empty.
    pub fn rust<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(folder) && file.path.ends_with(".rs"))
    }

    /// Whether a file or folder of that path exists among the files read.
    pub fn has(&self, path: &str) -> bool {
        self.files
            .iter()
            .any(|file| file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    fn read_folder(&mut self, root: &Path, relative: &str) -> io::Result<()> {
        let folder = root.join(relative);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        for entry in fs::read_dir(&folder).map_err(named)? {
            let entry = entry.map_err(named)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
            let kind = entry.file_type().map_err(named)?;
            if kind.is_dir() && name != "target" && name != ".git" {
                self.read_folder(root, &path)?;
            } else if kind.is_file() && [".rs", ".toml", ".md", ".lock"].iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(entry.path())
                    .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
                self.files.push(File::new(path, text));
            }
        }
        Ok(())
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") { strip(&text) } else { String::new() };
        Self { path, text, code }
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        let is_harness = self.path.starts_with("tests/e2e/");
        let inside = self.path.split_once("/src/").map_or(self.path.as_str(), |(_, inside)| inside);
        is_harness || inside.split('/').any(|part| part == "tests" || part == "tests.rs") && !self.in_own_crate()
    }

    /// The lines of code that are not test code, with their numbers from 1.
    pub fn product_lines(&self) -> Vec<(usize, &str)> {
        if self.is_test() {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let mut numbered = self.code.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
        while let Some((number, line)) = numbered.next() {
            let opens = |line: &str| line.contains("mod ") && line.contains('{');
            if line.trim() == "#[cfg(test)]" && numbered.peek().is_some_and(|(_, next)| opens(next)) {
                let mut depth = 0;
                for (_, line) in numbered.by_ref() {
                    depth += line.matches('{').count();
                    depth -= line.matches('}').count().min(depth);
                    if depth == 0 {
                        break;
                    }
                }
            } else {
                lines.push((number, line));
            }
        }
        lines
    }

    /// Crates under `tests/` whose code is held to the rules like any product.
    fn in_own_crate(&self) -> bool {
        self.path.starts_with("tests/") && self.path.contains("/src/") && !self.path.ends_with("/tests.rs")
    }
}

/// Blanks out comments, and the insides of text and character literals, keeping every line break.
fn strip(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            blank(&mut code, rest, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            blank(&mut code, rest, block_comment_length(rest))
        } else if let Some(length) = raw_text_length(text, at) {
            blank(&mut code, rest, length)
        } else if rest.starts_with('"') {
            blank(&mut code, rest, quoted_length(rest, '"'))
        } else if rest.starts_with('\'') && is_character_literal(rest) {
            blank(&mut code, rest, quoted_length(rest, '\''))
        } else {
            let character = rest.chars().next().map_or(1, char::len_utf8);
            code.push_str(&rest[..character]);
            character
        };
        at += length;
    }
    code
}

fn blank(code: &mut String, rest: &str, length: usize) -> usize {
    code.extend(rest[..length].chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
    length
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest.as_bytes()[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.as_bytes()[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#` and so on that starts at `at`, if one does.
fn raw_text_length(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix('r')?;
    let before = text[..at].chars().next_back();
    if before.is_some_and(|character| character.is_alphanumeric() && character != 'b' || character == '_') {
        return None;
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let inside = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).unwrap_or(inside.len().saturating_sub(end.len()));
    Some(1 + hashes + 1 + length + end.len())
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_character_literal(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => true,
        (Some(_), Some('\'')) => true,
        (Some(_) | None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a(\"x // y\\\"\"); // c\n/* d /* e */\n f */ g('\\'', '\"', r#\"h \"i\" \"#); fn j<'k>() {}";
        let code = strip(text);
        assert_eq!(code.lines().count(), text.lines().count());
        for hidden in ["x", "y", "c", "d", "e", "f */", "h", "i\"", "\\"] {
            assert!(!code.contains(hidden), "{hidden:?} is left in {code:?}");
        }
        for kept in ["a(", "g(", "fn j<'k>() {}"] {
            assert!(code.contains(kept), "{kept:?} is missing in {code:?}");
        }
    }

    #[test]
    fn test_modules_are_no_product_code() {
        let tree = Tree::of(&[("a/src/b.rs", "one\n#[cfg(test)]\nmod tests {\n  fn x() {\n  }\n}\ntwo\n")]);
        assert_eq!(tree.files[0].product_lines(), [(1, "one"), (7, "two")]);
        for (path, is_test) in [
            ("a/src/b/tests.rs", true),
            ("a/src/b/tests/c.rs", true),
            ("a/tests/b.rs", true),
            ("tests/tidy/src/lib.rs", false),
            ("tests/tidy/tests/repository.rs", true),
            ("a/src/attests.rs", false),
        ] {
            assert_eq!(Tree::of(&[(path, "x\n")]).files[0].is_test(), is_test, "{path}");
        }
    }

    #[test]
    fn folders_exist_through_their_files() {
        let tree = Tree::of(&[("server/src/run.rs", "")]);
        assert!(tree.has("server/src"));
        assert!(tree.has("server/src/run.rs"));
        assert!(!tree.has("server/sr"));
    }
}
