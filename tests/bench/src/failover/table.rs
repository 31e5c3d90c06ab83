//! What was seen, as a table that can be pasted.

use crate::Outcome;
use cluster::load::{SLOW, Seen};
use std::{fmt::Write as _, time::Duration};

/// One line of the table.
pub(super) struct Row {
    event: String,
    seen: Option<Seen>,
    served_after: Option<Result<Duration, String>>,
    note: String,
}

impl Row {
    /// What visitors saw.
    pub(super) fn of(event: &str, seen: &Seen) -> Self {
        Self { event: event.to_owned(), seen: Some(seen.clone()), served_after: None, note: String::new() }
    }

    /// How long it took until all was served.
    pub(super) fn timed(event: &str, served: Outcome<Duration>) -> Self {
        Self { event: event.to_owned(), seen: None, served_after: None, note: String::new() }.recovered(served)
    }

    /// A case that could not be run to its end.
    pub(super) fn broken(event: &str, error: &str) -> Self {
        Self { event: event.to_owned(), seen: None, served_after: None, note: format!("BROKEN: {error}") }
    }

    /// With the time until all was served again.
    pub(super) fn recovered(mut self, served: Outcome<Duration>) -> Self {
        self.served_after = Some(served.map_err(|error| error.to_string()));
        self
    }

    /// With more words.
    pub(super) fn note(mut self, note: &str) -> Self {
        note.clone_into(&mut self.note);
        self
    }
}

/// The table, and below it what went wrong.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "| event | served | failed | wrong | longest gap | sent again | moved | all served after | |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut errors = String::new();
    for row in rows {
        // Writing to a string cannot fail.
        let _ = write!(text, "| {} ", row.event);
        match &row.seen {
            Some(seen) => {
                let _ = write!(
                    text,
                    "| {} | {} | {} | {} ms | {} | {} ",
                    seen.served,
                    seen.failed,
                    seen.wrong,
                    seen.gap.as_millis(),
                    seen.again,
                    seen.moved
                );
            }
            None => text.push_str("| – | – | – | – | – | – "),
        }
        match &row.served_after {
            Some(Ok(served)) => {
                let _ = write!(text, "| {} ms ", served.as_millis());
            }
            Some(Err(_)) => text.push_str("| never "),
            None => text.push_str("| – "),
        }
        let _ = writeln!(text, "| {} |", row.note.replace(['\n', '|'], " "));
        if let Some(Err(error)) = &row.served_after {
            let _ = writeln!(errors, "{}: {error}", row.event);
        }
        if let Some(seen) = &row.seen
            && (seen.failed + seen.wrong > 0 || seen.gap > SLOW)
        {
            let (at, host) = &seen.gap_at;
            let _ = writeln!(
                errors,
                "{}: {} waits above {} ms, the longest from {} ms on for {host}",
                row.event,
                seen.slow,
                SLOW.as_millis(),
                at.as_millis()
            );
            if let Some((first, last)) = seen.between {
                let _ = writeln!(errors, "  errors from {} ms to {} ms", first.as_millis(), last.as_millis());
            }
            for (error, count) in &seen.errors {
                let _ = writeln!(errors, "  {count} x {error}");
            }
        }
    }
    if !errors.is_empty() {
        let _ = write!(text, "\n```text\n{errors}```\n");
    }
    text
}
