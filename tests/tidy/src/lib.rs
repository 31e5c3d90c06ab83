//! The rules of the source tree that no compiler checks, held as tests.
//!
//! Reads the text of the repository and nothing else. [`Tree::read`] loads it, each `check` function of the modules
//! below takes a [`Tree`] and returns what breaks its rule, and `tests/repository.rs` runs them all. A rule proves itself
//! beside its code, on a tree with a planted violation.
//!
//! | module | rule |
//! |---|---|
//! | [`layer`] | which module of the server may name which other |
//! | [`dependency`] | which crate may depend on which, and where a library may be named |
//! | [`pure`] | files that decide take time as an argument and do no IO |
//! | [`style`] | folder names, left-over work, lengths, what is never written |
//! | [`document`] | every path that README and ARCHITECTURE name exists |

pub mod dependency;
pub mod document;
pub mod layer;
pub mod pure;
mod source;
pub mod style;

pub use source::{File, Tree};

use std::fmt;

/// One place that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// File or folder, relative to the root of the repository.
    pub path: String,
    /// First line concerned, from 1; 0 if the whole file is.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
