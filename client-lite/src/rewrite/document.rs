//! A YAML text as a tree of places.

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, StructureStyle};
use std::ops::Range;

/// A node and where it stands.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(Scalar),
    Mapping(Mapping),
    Sequence(Vec<Self>),
    /// Refers to another node; cannot be edited in place.
    Alias,
}

#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) style: ScalarStyle,
    /// Bytes of the text; empty if the value is left out.
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) style: StructureStyle,
    /// Where its keys begin, counted from 0; meant for block style.
    pub(super) column: usize,
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Scalar,
    pub(super) value: Node,
}

impl Mapping {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.text == key)
    }
}

/// Parses the first document of a text. None if it is no YAML, or has keys that are no scalars.
pub(super) fn parse(text: &str) -> Option<Node> {
    let mut events = Events(Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false }));
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(..) => {}
            node => return events.node(node, span),
        }
    }
}

struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.0.next_event()?.ok()
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Option<Node> {
        match event {
            Event::Scalar(text, style, ..) => {
                Some(Node::Scalar(Scalar { text: text.into_owned(), style, range: span.byte_range()? }))
            }
            Event::Alias(_) => Some(Node::Alias),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Some(Node::Sequence(items)),
                        (event, span) => items.push(self.node(event, span)?),
                    }
                }
            }
            Event::MappingStart(style, ..) => {
                let mut entries = Vec::new();
                let mut column = span.start.col();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::MappingEnd {
                        return Some(Node::Mapping(Mapping { style, column, entries }));
                    }
                    if entries.is_empty() {
                        column = span.start.col();
                    }
                    let Node::Scalar(key) = self.node(event, span)? else {
                        return None;
                    };
                    let (event, span) = self.next()?;
                    let value = self.node(event, span)?;
                    entries.push(Entry { key, value });
                }
            }
            // The parser's type may grow; nothing else stands where a node does.
            _ => None,
        }
    }
}
