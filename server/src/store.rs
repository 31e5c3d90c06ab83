//! The commands on a data directory: `specter-server store …`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use crate::node::offline::{self, OfflineError, Summary};

/// One command.
#[derive(Debug)]
pub struct Task {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Whether programs read what is printed.
    pub json: bool,
    /// What to do.
    pub action: Action,
}

/// What to do with a data directory.
#[derive(Debug)]
pub enum Action {
    /// Tell what it holds.
    Check,
    /// Print the records of the log.
    Dump,
    /// Copy it.
    Backup {
        /// Where to.
        out: PathBuf,
    },
    /// Make it of a copy.
    Restore {
        /// The copy.
        from: PathBuf,
    },
    /// Print what is in it.
    Export,
    /// Write the log into the snapshot.
    Compact,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The output.
    #[error("the output cannot be written; give it a place with room")]
    Output(#[from] io::Error),
}

/// Carries out a command and prints to `out`. A reader that went away ends it.
///
/// # Errors
/// [`StoreError`].
pub fn run(task: &Task, out: &mut dyn Write) -> Result<(), StoreError> {
    match follow(task, &mut BufWriter::new(out)) {
        Err(StoreError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn follow(task: &Task, out: &mut impl Write) -> Result<(), StoreError> {
    let Task { data_dir, json, action } = task;
    match action {
        Action::Check => tell(&offline::check(data_dir)?, "Nothing is wrong with", data_dir, *json, out)?,
        Action::Dump => {
            let mut written = Ok(());
            offline::dump(data_dir, *json, |line| {
                if written.is_ok() {
                    written = writeln!(out, "{line}");
                }
            })?;
            written?;
        }
        Action::Backup { out: copy } => tell(&offline::copy(data_dir, copy)?, "Made", copy, *json, out)?,
        Action::Restore { from } => {
            tell(&offline::copy(from, data_dir)?, "Made", data_dir, *json, out)?;
            if !json {
                writeln!(
                    out,
                    "A node alone in its cluster can start on it. In a larger cluster start on an empty directory: the other \
                     nodes fill it."
                )?;
            }
        }
        Action::Export => {
            for held in offline::export(data_dir)? {
                writeln!(out, "{}", held.to_json())?;
            }
        }
        Action::Compact => tell(&offline::compact(data_dir)?, "Made smaller:", data_dir, *json, out)?,
    }
    Ok(out.flush()?)
}

fn tell(summary: &Summary, what: &str, path: &std::path::Path, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", summary.to_json());
    }
    writeln!(out, "{what} {}.\n{summary}", path.display())
}
