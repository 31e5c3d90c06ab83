//! A line, word by word.

use std::time::Duration;

use super::Error;

/// The words of a line that are still to be read.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    line: usize,
    left: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: usize, text: &'a str) -> Self {
        let before_comment = text.split('#').next().unwrap_or_default();
        Self { line, left: before_comment.split_whitespace().peekable() }
    }

    pub(super) const fn line(&self) -> usize {
        self.line
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.left.peek().is_none()
    }

    pub(super) fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Line { line: self.line, problem: problem.into() }
    }

    /// The next word, which is to be this kind of thing.
    pub(super) fn next(&mut self, wanted: &str) -> Result<&'a str, Error> {
        self.left.next().ok_or_else(|| self.wrong(format!("the line ends where {wanted} is wanted")))
    }

    /// Takes the next word if it is this one.
    pub(super) fn has(&mut self, word: &str) -> bool {
        self.left.next_if(|next| *next == word).is_some()
    }

    /// The next word is this one.
    pub(super) fn must(&mut self, word: &str) -> Result<(), Error> {
        match self.next(&format!("\"{word}\""))? {
            found if found == word => Ok(()),
            found => Err(self.wrong(format!("\"{word}\" is wanted, not \"{found}\""))),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, wanted: &str) -> Result<T, Error> {
        let word = self.next(wanted)?;
        word.parse().map_err(|_| self.wrong(format!("{wanted} is wanted, not \"{word}\"")))
    }

    /// A span like 250ms, 10s or 2m.
    pub(super) fn span(&mut self) -> Result<Duration, Error> {
        let word = self.next("a span of time")?;
        let wrong = || self.wrong(format!("\"{word}\" is no span of time; write it like 250ms, 10s or 2m"));
        let unit_at = word.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = word[..unit_at].parse().map_err(|_| wrong())?;
        match &word[unit_at..] {
            "ms" => Ok(Duration::from_millis(count)),
            "s" => Ok(Duration::from_secs(count)),
            "m" => Ok(Duration::from_secs(count * 60)),
            _ => Err(wrong()),
        }
    }

    /// Nothing more may follow.
    pub(super) fn end(mut self) -> Result<(), Error> {
        match self.left.next() {
            None => Ok(()),
            Some(word) => Err(self.wrong(format!("nothing is wanted after this, but there is \"{word}\""))),
        }
    }
}
