//! What a packet says, in a line that a person can read.

use std::collections::BTreeMap;
use std::fmt::Write;

use specter_dht::{NodeId, Packet, Part};

use super::machine::Name;

/// The longest text of one part.
const PART_CHARS: usize = 160;

/// What a packet says; machines by their names.
pub(super) fn packet(names: &BTreeMap<NodeId, Name>, packet: &Packet) -> String {
    let mut line = String::new();
    for (index, part) in packet.parts.iter().enumerate() {
        let text = match part {
            Part::Ring(message) => format!("{message:?}"),
            Part::Slot { slot, message } => format!("slot {} {message:?}", slot.0),
            Part::Ask { number, freshness, request } => format!("ask {number} {freshness:?} {request:?}"),
            Part::Told { number, reply } => format!("told {number} {reply:?}"),
            Part::Pointer { slot, version, members } => format!("slot {} is at {members:?}, {version}", slot.0),
            Part::Handed { slot, config } => format!("slot {} goes on without me: {config:?}", slot.0),
            Part::Understood { slot, version } => format!("slot {} goes on with {version}, I know", slot.0),
        };
        let text = with_names(names, &text);
        let cut = text.char_indices().nth(PART_CHARS).map_or(text.len(), |(at, _)| at);
        let dots = if cut < text.len() { "…" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(line, "{}{}{dots}", if index > 0 { " | " } else { "" }, &text[..cut]);
    }
    line
}

/// Puts names where nodes are written by number.
pub(super) fn with_names(names: &BTreeMap<NodeId, Name>, text: &str) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("NodeId(") {
        named.push_str(before);
        let Some((number, after)) = after.split_once(')') else { break };
        let known = number.parse().ok().and_then(|number| names.get(&NodeId(number)));
        named.push_str(&known.map_or_else(|| number.to_string(), ToString::to_string));
        rest = after;
    }
    named.push_str(rest);
    named
}
