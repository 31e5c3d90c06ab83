//! Writes what a node gave into the text of the user's file, and leaves the rest of the text as it is: comments, order,
//! quotes, indentation, line ends. PURE. Called by `store`.
//!
//! The parser tells where each value stands, and only those places change. The result is parsed again: if it says
//! anything but the old text with the new values, it is refused and the file stays untouched.

#[cfg(test)]
mod tests;

use crate::{
    config::raw::{self, At, RawConfig, Secret},
    yaml::{self, Entry, Kind, Mapping, Node, Scalar},
};
use granit_parser::{ScalarStyle, StructureStyle};
use std::ops::Range;

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Values {
    /// PEM.
    pub(crate) certificate: Option<String>,
    /// PEM.
    pub(crate) private_key: Option<Secret>,
    pub(crate) hostnames: Vec<NewName>,
}

/// A hostname for a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewName {
    /// Place in `tunnels`.
    pub(crate) tunnel: usize,
    /// What the tunnel led to when the name was asked for.
    pub(crate) target: String,
    pub(crate) hostname: String,
}

/// Returns the text with the values in it.
///
/// # Errors
/// The text stays as it was; the user has to write the values, or to write the file in a plainer way.
pub(crate) fn rewrite(text: &str, values: &Values) -> Result<String, RewriteError> {
    let old = raw::parse(text).map_err(|error| RewriteError::Parse { line: error.line, message: error.message })?;
    let intent = intent(old, values)?;
    let Ok(Some(Node { kind: Kind::Mapping(root), .. })) = yaml::parse(text) else {
        return Err(RewriteError::Shape { what: "the file" });
    };
    let mut editor = Editor { text, end_of_line: if text.contains("\r\n") { "\r\n" } else { "\n" }, edits: Vec::new() };
    let pem = |text: &str| Value::Pem(format!("{}\n", text.trim_end()));
    // Values that are inserted at one place keep this order.
    if let Some(certificate) = &values.certificate {
        editor.set(&root, "apex", "certificate", &pem(certificate))?;
    }
    if let Some(Secret(private_key)) = &values.private_key {
        editor.set(&root, "apex", "privKey", &pem(private_key))?;
    }
    if !values.hostnames.is_empty() {
        let Some(Entry { value: Node { kind: Kind::Sequence(tunnels), .. }, .. }) = root.entry("tunnels") else {
            return Err(RewriteError::Shape { what: "`tunnels`" });
        };
        for NewName { tunnel, hostname, .. } in &values.hostnames {
            let Some(Node { kind: Kind::Mapping(tunnel), .. }) = tunnels.get(*tunnel) else {
                return Err(RewriteError::Shape { what: "a tunnel" });
            };
            editor.set(tunnel, "target", "hostname", &Value::Name(hostname.clone()))?;
        }
    }
    let new = editor.finish();
    match raw::parse(&new) {
        Ok(result) if result == intent => Ok(new),
        Ok(_) | Err(_) => Err(RewriteError::Shape { what: "the file" }),
    }
}

/// Why a text was not rewritten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewriteError {
    /// The text is no configuration any more.
    #[error("line {line}: {message}")]
    Parse {
        /// Where.
        line: u64,
        /// What the parser says.
        message: String,
    },
    /// The text has other tunnels than those that hostnames were asked for.
    #[error("its tunnels were changed meanwhile; start the client again")]
    Changed,
    /// Aliases, tags and the like stand where values have to go.
    #[error("{what} is written in a way that cannot be edited without a risk: use plain `key: value` lines")]
    Shape {
        /// What.
        what: &'static str,
    },
}

/// What the rewritten text has to say.
fn intent(old: RawConfig, values: &Values) -> Result<RawConfig, RewriteError> {
    let pem = |text: &str| format!("{}\n", text.trim_end());
    let mut new = old;
    if let Some(certificate) = &values.certificate {
        new.certificate = Some(At { value: pem(certificate), line: 0 });
    }
    if let Some(Secret(private_key)) = &values.private_key {
        new.priv_key = Some(At { value: Secret(pem(private_key)), line: 0 });
    }
    for NewName { tunnel, target, hostname } in &values.hostnames {
        let tunnel = new.tunnels.as_mut().and_then(|tunnels| tunnels.get_mut(*tunnel)).ok_or(RewriteError::Changed)?;
        if tunnel.target.as_ref().is_none_or(|at| at.value != *target) {
            return Err(RewriteError::Changed);
        }
        tunnel.hostname = Some(At { value: hostname.clone(), line: 0 });
    }
    Ok(new)
}

/// A value to write.
enum Value {
    /// Several lines.
    Pem(String),
    /// Letters, digits, hyphens and dots.
    Name(String),
}

impl Value {
    /// On one line, in double quotes.
    fn quoted(&self) -> String {
        match self {
            Self::Pem(text) => format!("\"{}\"", text.replace('\n', "\\n")),
            Self::Name(text) => format!("\"{text}\""),
        }
    }

    /// On one line, in quotes only where it has to be or was before.
    fn inline(&self, style: ScalarStyle) -> String {
        match (self, style) {
            (Self::Name(text), ScalarStyle::SingleQuoted) => format!("'{text}'"),
            (Self::Name(text), ScalarStyle::Plain) if is_plain(text) => text.clone(),
            (
                Self::Name(_) | Self::Pem(_),
                ScalarStyle::Plain
                | ScalarStyle::SingleQuoted
                | ScalarStyle::DoubleQuoted
                | ScalarStyle::Literal
                | ScalarStyle::Folded,
            ) => self.quoted(),
        }
    }
}

/// Whether a hostname is a text to every YAML parser without quotes: five words are, `1e5` and `true` are not.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.contains('-')
}

/// Collects changes to a text.
struct Editor<'a> {
    text: &'a str,
    end_of_line: &'static str,
    edits: Vec<(Range<usize>, String)>,
}

impl Editor<'_> {
    /// Gives `key` a value, or puts it behind the entry `neighbour` if it is not there.
    fn set(
        &mut self,
        mapping: &Mapping,
        neighbour: &'static str,
        key: &'static str,
        value: &Value,
    ) -> Result<(), RewriteError> {
        let shape = RewriteError::Shape { what: "the file" };
        match (mapping.entry(key), mapping.entry(neighbour)) {
            (Some(Entry { key: place, value: Node { kind: Kind::Scalar(scalar), .. }, .. }), _) => {
                self.replace(mapping, place, scalar, value).ok_or(shape)
            }
            (Some(_), _) | (None, None) => Err(shape),
            (None, Some(neighbour)) => self.insert(mapping, neighbour, key, value).ok_or(shape),
        }
    }

    fn replace(&mut self, mapping: &Mapping, key: &Scalar, old: &Scalar, value: &Value) -> Option<()> {
        let colon = key.range.end + self.text.get(key.range.end..)?.find(':')? + 1;
        let block = mapping.style == StructureStyle::Block;
        match (value, old.style) {
            (Value::Pem(pem), ScalarStyle::Literal | ScalarStyle::Folded) => {
                let header = colon + self.text.get(colon..)?.find(['|', '>'])?;
                let header_length = self.text[header..].find(char::is_whitespace)?;
                self.edits.push((header..header + header_length, "|".to_owned()));
                let body = self.line_end(header);
                let end = if old.range.end > body { self.line_end(self.trimmed_end(&old.range)) } else { body };
                self.edits.push((body..end.max(body), self.indented(pem, mapping.column)));
            }
            (Value::Name(_), ScalarStyle::Literal | ScalarStyle::Folded) => return None,
            (Value::Pem(pem), _) if block => {
                let header = if old.range.is_empty() { (colon..colon, " |") } else { (old.range.clone(), "|") };
                let body = self.line_end(header.0.end);
                self.edits.push((header.0, header.1.to_owned()));
                let pem = self.indented(pem, mapping.column);
                self.insert_line(body, &pem);
            }
            (Value::Pem(_) | Value::Name(_), style) if old.range.is_empty() => {
                self.edits.push((colon..colon, format!(" {}", value.inline(style))));
            }
            (Value::Pem(_) | Value::Name(_), style) => self.edits.push((old.range.clone(), value.inline(style))),
        }
        Some(())
    }

    fn insert(&mut self, mapping: &Mapping, neighbour: &Entry, key: &str, value: &Value) -> Option<()> {
        let Kind::Scalar(Scalar { range, .. }) = &neighbour.value.kind else {
            return None;
        };
        let end = self.trimmed_end(range);
        match mapping.style {
            StructureStyle::Flow => {
                let entry = if neighbour.key.style == ScalarStyle::DoubleQuoted {
                    format!(", \"{key}\": {}", value.quoted())
                } else {
                    format!(", {key}: {}", value.inline(ScalarStyle::Plain))
                };
                self.edits.push((end..end, entry));
            }
            StructureStyle::Block => {
                let margin = " ".repeat(mapping.column);
                let entry = match value {
                    Value::Pem(pem) => {
                        format!("{margin}{key}: |{}{}", self.end_of_line, self.indented(pem, mapping.column))
                    }
                    Value::Name(_) => {
                        format!("{margin}{key}: {}{}", value.inline(ScalarStyle::Plain), self.end_of_line)
                    }
                };
                self.insert_line(self.line_end(end), &entry);
            }
        }
        Some(())
    }

    /// Inserts whole lines at the start of a line, or behind a last line that has no end.
    fn insert_line(&mut self, at: usize, lines: &str) {
        let lines = if self.text[..at].ends_with('\n') || self.edits.iter().any(|(range, _)| *range == (at..at)) {
            lines.to_owned()
        } else {
            format!("{}{lines}", self.end_of_line)
        };
        self.edits.push((at..at, lines));
    }

    /// The lines of a text, two columns to the right of `column`.
    fn indented(&self, text: &str, column: usize) -> String {
        let margin = " ".repeat(column + 2);
        text.lines().flat_map(|line| [margin.as_str(), line, self.end_of_line]).collect()
    }

    /// The start of the line after the one that holds `at`.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |length| at + length + 1)
    }

    /// The end of a value without the blank lines that a block value claims.
    fn trimmed_end(&self, range: &Range<usize>) -> usize {
        range.start + self.text[range.clone()].trim_end().len()
    }

    fn finish(mut self) -> String {
        // Stable, so that insertions at one place keep their order.
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut new = String::with_capacity(self.text.len() + 2048);
        let mut done = 0;
        for (range, text) in &self.edits {
            new.push_str(&self.text[done..range.start.max(done)]);
            new.push_str(text);
            done = range.end.max(done);
        }
        new.push_str(&self.text[done..]);
        new
    }
}
