//! A YAML text as a tree of places. PURE. Read by `config`, edited by `rewrite`.
//!
//! One small tree serves both, so what the writer changes is what the reader sees. A framework for deserialization
//! would weigh more than the parser below it.

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};
use std::ops::Range;

/// A value, where it stands, and the anchor that it can be referred to by (0: none).
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Counted from 1.
    pub(crate) line: u64,
    anchor: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(Scalar),
    Mapping(Mapping),
    Sequence(Vec<Node>),
    /// Refers to the node with this anchor; cannot be edited in place.
    Alias(usize),
}

#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: ScalarStyle,
    /// Bytes of the text; empty if the value is left out.
    pub(crate) range: Range<usize>,
}

#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) style: StructureStyle,
    /// Where its keys begin, counted from 0; meant for block style.
    pub(crate) column: usize,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Scalar,
    /// Of the key, counted from 1.
    pub(crate) line: u64,
    pub(crate) value: Node,
}

/// Why a text is no YAML of the kind that a configuration is. Messages never quote values, which may be secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SyntaxError {
    pub(crate) line: u64,
    pub(crate) message: String,
}

impl SyntaxError {
    pub(crate) fn new(line: u64, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl Node {
    /// Whether nothing is said: a value that is left out, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.is_null(),
            Kind::Mapping(_) | Kind::Sequence(_) | Kind::Alias(_) => false,
        }
    }

    /// The node below this one, or this one, that has an anchor.
    pub(crate) fn anchored(&self, anchor: usize) -> Option<&Self> {
        if self.anchor == anchor {
            return Some(self);
        }
        match &self.kind {
            Kind::Mapping(mapping) => mapping.entries.iter().find_map(|entry| entry.value.anchored(anchor)),
            Kind::Sequence(items) => items.iter().find_map(|item| item.anchored(anchor)),
            Kind::Scalar(_) | Kind::Alias(_) => None,
        }
    }
}

impl Scalar {
    fn is_null(&self) -> bool {
        self.style == ScalarStyle::Plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

impl Mapping {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.text == key)
    }
}

/// Parses a text of one document. None if there is nothing in it.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, SyntaxError> {
    let options = granit_parser::options! { emit_comments: false };
    let mut events = Events { parser: Parser::new_from_str_with_options(text, options), line: 1 };
    let mut root = None;
    while let Some((event, span)) = events.try_next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) if root.is_none() => {}
            node if root.is_none() => root = Some(events.node(node, &span, 0)?),
            _ => return Err(SyntaxError::new(events.line, "a second document begins here: keep one in a file")),
        }
    }
    Ok(root)
}

struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Of the last event.
    line: u64,
}

impl<'a> Events<'a> {
    fn try_next(&mut self) -> Result<Option<(Event<'a>, Span)>, SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.line = line(span.start.line());
                Ok(Some((event, span)))
            }
            Some(Err(error)) => Err(SyntaxError::new(line(error.marker().line()), error.info())),
            None => Ok(None),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        self.try_next()?.ok_or_else(|| self.odd())
    }

    fn odd(&self) -> SyntaxError {
        SyntaxError::new(self.line, "this is no YAML that a configuration needs: use plain `key: value` lines")
    }

    /// The node that begins with an event, at a depth below the root.
    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, SyntaxError> {
        let line = self.line;
        if depth > DEPTH {
            return Err(SyntaxError::new(line, "lists and mappings are nested too deeply"));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (Kind::Scalar(self.scalar(text.into(), style, span)?), anchor),
            Event::Alias(anchor) => (Kind::Alias(anchor), 0),
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break (Kind::Sequence(items), anchor),
                        (event, span) => items.push(self.node(event, &span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(style, anchor, _) => {
                (Kind::Mapping(self.mapping(style, span.start.col(), depth)?), anchor)
            }
            // The parser's type may grow; nothing else stands where a node does.
            _ => return Err(self.odd()),
        };
        Ok(Node { kind, line, anchor })
    }

    fn mapping(&mut self, style: StructureStyle, start: usize, depth: usize) -> Result<Mapping, SyntaxError> {
        let mut mapping = Mapping { style, column: start, entries: Vec::new() };
        loop {
            let (text, key_style, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(mapping),
                (Event::Scalar(text, style, ..), span) => (text, style, span),
                _ => return Err(SyntaxError::new(self.line, "a key has to be a single word")),
            };
            let line = self.line;
            if mapping.entries.is_empty() {
                mapping.column = span.start.col();
            }
            let key = self.scalar(text.into(), key_style, &span)?;
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            mapping.entries.push(Entry { key, line, value });
        }
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: &Span) -> Result<Scalar, SyntaxError> {
        let range = span.byte_range().ok_or_else(|| self.odd())?;
        Ok(Scalar { text, style, range })
    }
}

fn line(line: usize) -> u64 {
    u64::try_from(line).unwrap_or(u64::MAX)
}

/// Levels of lists and mappings; a configuration has four.
const DEPTH: usize = 16;
