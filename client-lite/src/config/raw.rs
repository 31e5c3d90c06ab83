//! The configuration file as the user typed it: every field optional, unknown ones refused. PURE. Checked by `config`.

use crate::yaml::{self, Entry, Kind, Mapping, Node, SyntaxError};
use std::fmt;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawConfig {
    pub(crate) version: Option<At<String>>,
    pub(crate) apex: Option<At<String>>,
    pub(crate) ca_file: Option<At<String>>,
    pub(crate) pinned_key: Option<At<String>>,
    pub(crate) certificate: Option<At<String>>,
    pub(crate) priv_key: Option<At<Secret>>,
    pub(crate) tunnels: Option<Vec<RawTunnel>>,
    pub(crate) memory: Option<At<String>>,
    pub(crate) links: Option<At<String>>,
    pub(crate) transport: Option<At<String>>,
}

/// One entry of `tunnels`. Values are texts, so that the check that follows can tell what they hold: `15s` and `15` are
/// both durations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RawTunnel {
    pub(crate) target: Option<At<String>>,
    pub(crate) hostname: Option<At<String>>,
    pub(crate) insecure: Option<At<String>>,
    pub(crate) header_timeout: Option<At<String>>,
    pub(crate) header_mode: Option<At<String>>,
    pub(crate) header_host: Option<At<String>>,
}

/// A value and the line it stands on. Two are equal when their values are.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: u64,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A text that must not appear in logs.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Parses the text of a file. Messages never quote a value, which may be the private key.
pub(crate) fn parse(text: &str) -> Result<RawConfig, SyntaxError> {
    match yaml::parse(text)? {
        Some(root) => Reader { root: &root }.config(),
        None => Ok(RawConfig::default()),
    }
}

/// Takes the fields out of a tree.
struct Reader<'a> {
    /// Where aliases find what they refer to.
    root: &'a Node,
}

impl<'a> Reader<'a> {
    fn config(&self) -> Result<RawConfig, SyntaxError> {
        let mut raw = RawConfig::default();
        for entry in self.fields(self.root, "the file")? {
            let field = match entry.key.text.as_str() {
                "version" => &mut raw.version,
                "apex" => &mut raw.apex,
                "caFile" => &mut raw.ca_file,
                "pinnedKey" => &mut raw.pinned_key,
                "memory" => &mut raw.memory,
                "links" => &mut raw.links,
                "transport" => &mut raw.transport,
                "certificate" => &mut raw.certificate,
                "privKey" => {
                    raw.priv_key = self.text(entry)?.map(|At { value, line }| At { value: Secret(value), line });
                    continue;
                }
                "tunnels" => {
                    raw.tunnels = self.tunnels(entry)?;
                    continue;
                }
                _ => return Err(unknown(entry)),
            };
            *field = self.text(entry)?;
        }
        Ok(raw)
    }

    fn tunnels(&self, entry: &'a Entry) -> Result<Option<Vec<RawTunnel>>, SyntaxError> {
        let value = self.resolve(&entry.value)?;
        match &value.kind {
            Kind::Sequence(items) => items.iter().map(|item| self.tunnel(item)).collect::<Result<_, _>>().map(Some),
            Kind::Scalar(_) if value.is_null() => Ok(None),
            Kind::Scalar(_) | Kind::Mapping(_) | Kind::Alias(_) => {
                let message = "`tunnels`: a sequence is expected, one line with `- target: …` for each tunnel";
                Err(SyntaxError::new(entry.value.line, message))
            }
        }
    }

    fn tunnel(&self, node: &'a Node) -> Result<RawTunnel, SyntaxError> {
        let mut raw = RawTunnel::default();
        for entry in self.fields(node, "a tunnel")? {
            // Those that begin with `proxy` are names that older files of the original use.
            let field = match entry.key.text.as_str() {
                "target" => &mut raw.target,
                "hostname" => &mut raw.hostname,
                "insecure" => &mut raw.insecure,
                "headerTimeout" | "proxyHeaderTimeout" => &mut raw.header_timeout,
                "headerMode" | "proxyHeaderMode" => &mut raw.header_mode,
                "headerHost" | "proxyHeaderHost" => &mut raw.header_host,
                _ => return Err(unknown(entry)),
            };
            if field.is_some() {
                return Err(twice(entry));
            }
            *field = self.text(entry)?;
        }
        Ok(raw)
    }

    /// The entries of a mapping, each key once. What `<<` brings in gives way to what the mapping itself says.
    fn fields(&self, node: &'a Node, what: &str) -> Result<Vec<&'a Entry>, SyntaxError> {
        let mut fields = self.mapping(node, what)?.map(own).transpose()?.unwrap_or_default();
        for _ in 0..MERGES {
            let Some(index) = fields.iter().position(|entry| entry.key.text == MERGE) else {
                return Ok(fields);
            };
            let merged = self.mapping(&fields.remove(index).value, "`<<`")?;
            for entry in merged.map(own).transpose()?.unwrap_or_default() {
                if fields.iter().all(|known| known.key.text != entry.key.text) {
                    fields.push(entry);
                }
            }
        }
        Err(SyntaxError::new(node.line, "`<<` leads to too many others"))
    }

    /// The mapping that a node is or refers to; None if it is null.
    fn mapping(&self, node: &'a Node, what: &str) -> Result<Option<&'a Mapping>, SyntaxError> {
        let value = self.resolve(node)?;
        match &value.kind {
            Kind::Mapping(mapping) => Ok(Some(mapping)),
            Kind::Scalar(_) if value.is_null() => Ok(None),
            Kind::Scalar(_) | Kind::Sequence(_) | Kind::Alias(_) => {
                Err(SyntaxError::new(node.line, format!("{what} has to be a mapping of `key: value` lines")))
            }
        }
    }

    /// A single value; None if nothing is said.
    fn text(&self, entry: &'a Entry) -> Result<Option<At<String>>, SyntaxError> {
        let value = self.resolve(&entry.value)?;
        match &value.kind {
            Kind::Scalar(_) if value.is_null() => Ok(None),
            Kind::Scalar(scalar) => Ok(Some(At { value: scalar.text.clone(), line: entry.value.line })),
            Kind::Mapping(_) | Kind::Sequence(_) | Kind::Alias(_) => {
                Err(SyntaxError::new(entry.line, format!("`{}`: a single value is expected", entry.key.text)))
            }
        }
    }

    fn resolve(&self, node: &'a Node) -> Result<&'a Node, SyntaxError> {
        match node.kind {
            Kind::Alias(anchor) => {
                self.root.anchored(anchor).ok_or_else(|| SyntaxError::new(node.line, "there is no such anchor"))
            }
            Kind::Scalar(_) | Kind::Mapping(_) | Kind::Sequence(_) => Ok(node),
        }
    }
}

/// The entries of one mapping as it is written.
fn own(mapping: &Mapping) -> Result<Vec<&Entry>, SyntaxError> {
    let mut entries: Vec<&Entry> = Vec::with_capacity(mapping.entries.len());
    for entry in &mapping.entries {
        if entries.iter().any(|known| known.key.text == entry.key.text) {
            return Err(twice(entry));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn unknown(entry: &Entry) -> SyntaxError {
    SyntaxError::new(entry.line, format!("`{}` is no field that belongs here", shown(entry)))
}

fn twice(entry: &Entry) -> SyntaxError {
    SyntaxError::new(entry.line, format!("`{}` is given twice", shown(entry)))
}

/// A key as far as it looks like one: in a damaged file, a line of the private key may stand in its place.
fn shown(entry: &Entry) -> &str {
    let text = &entry.key.text;
    if text.len() <= KEY_BYTES && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') { text } else { "…" }
}

/// Brings the entries of another mapping in, as most programs that read YAML have it.
const MERGE: &str = "<<";

/// Mappings that one mapping may bring in, by way of each other.
const MERGES: usize = 8;

/// Longest key that a message repeats.
const KEY_BYTES: usize = 32;
