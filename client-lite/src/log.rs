//! Log lines on standard error: time, level, sentence, fields.
//!
//! A subscriber with layers, spans and formats weighs as much as a tenth of the smallest client; this one tells events.

use crate::clock::date_of;
use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::{LevelFilter, STATIC_MAX_LEVEL},
    span::{Attributes, Id, Record},
};

/// Tells events of this level and above from here on.
pub(crate) fn start(level: Level) {
    let lines = Lines { level, colours: io::stderr().is_terminal() };
    // Only a program that embeds this one could have set another, and then that one is meant.
    tracing::subscriber::set_global_default(lines).ok();
    if STATIC_MAX_LEVEL < level {
        tracing::warn!("this build tells nothing below {STATIC_MAX_LEVEL}");
    }
}

struct Lines {
    level: Level,
    colours: bool,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let line = line(now_ms, *event.metadata().level(), self.colours, |fields| event.record(fields));
        // There is nowhere to tell that nobody can be told.
        io::stderr().lock().write_all(line.as_bytes()).ok();
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// One line with its end.
fn line(now_unix_ms: u64, level: Level, colours: bool, record: impl FnOnce(&mut Fields)) -> String {
    let mut fields = Fields { message: Text::default(), rest: Text::default() };
    record(&mut fields);
    let time = date_of(now_unix_ms / 1000);
    let milliseconds = now_unix_ms % 1000;
    let name = level.as_str();
    let Fields { message: Text(message), rest: Text(rest) } = fields;
    let (on, off) = if colours { (colour(level), "\x1b[0m") } else { ("", "") };
    format!("{time}.{milliseconds:03}Z {on}{name:>5}{off} {message}{rest}\n")
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// What an event says, as ` key=value` behind its sentence.
struct Fields {
    message: Text,
    rest: Text,
}

impl Visit for Fields {
    /// Without the fraction: what it takes to print one is a hundredth of the smallest client.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record_i64(field, value as i64);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.record_i64(field, i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX }));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.record_u64(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (text, key) = match field.name() {
            "message" => (&mut self.message, ""),
            key => (&mut self.rest, key),
        };
        // Writing to a text fails only when it is full.
        if key.is_empty() {
            write!(text, "{value:?}").ok()
        } else {
            write!(text, " {key}={value:?}").ok()
        };
    }
}

/// A text of bounded length on one line: control characters, which a peer may have sent, are written out.
#[derive(Default)]
struct Text(String);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= TEXT_BYTES {
                return Err(fmt::Error);
            }
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// Longest sentence, and longest list of fields, of one line.
const TEXT_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_sentence_and_fields() {
        let line = line(1_795_464_000_007, Level::WARN, false, |fields| {
            write!(fields.message, "no link").expect("room");
            write!(fields.rest, " reason={:?}", "it is down").expect("room");
        });
        assert_eq!(line, "2026-11-23T20:00:00.007Z  WARN no link reason=\"it is down\"\n");
    }

    #[test]
    fn nothing_that_a_peer_says_leaves_its_line_or_grows_it_without_end() {
        let line = line(0, Level::INFO, true, |fields| {
            write!(fields.message, "a\nb\x1b[0m").expect("room");
            write!(fields.rest, "{}", "x".repeat(2 * TEXT_BYTES)).expect_err("full");
        });
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r"a\nb\u{1b}[0m") && line.len() < TEXT_BYTES + 100, "{line}");
    }
}
