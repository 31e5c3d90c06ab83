//! The commands on a data directory: `specter-server store …`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use crate::node::{
    offline::{self, OfflineError, Summary},
    restore::{self, Wanted},
};

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
    /// Make it of copies.
    Restore(Wanted),
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
        Action::Restore(wanted) => {
            let restored = restore::restore(wanted, data_dir)?;
            if *json {
                writeln!(out, "{}", restored.to_json())?;
            } else if wanted.is_dry {
                write!(out, "{restored}")?;
            } else {
                writeln!(out, "Made {}.\n{restored}", data_dir.display())?;
                writeln!(
                    out,
                    "Start one node on it without --join: it is a new node that holds everything. Then start the others on empty \
                     directories and let them --join it. Never do so while other nodes of this cluster still run."
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Key, tests::alone};

    fn printed(data_dir: &std::path::Path, json: bool, action: Action) -> Result<String, StoreError> {
        let mut out = Vec::new();
        run(&Task { data_dir: data_dir.to_owned(), json, action }, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    fn all(copy: &std::path::Path) -> Wanted {
        Wanted { from: vec![copy.to_owned()], accepts_loss: false, is_dry: false }
    }

    #[tokio::test]
    async fn every_command_works_on_a_directory_that_a_node_left() {
        let parent = tempfile::tempdir().expect("a folder");
        let (data, backup, restored) =
            (parent.path().join("data"), parent.path().join("backup"), parent.path().join("restored"));
        let node = alone(&data);
        let store = node.handle().within(std::time::Duration::from_secs(30));
        store.put(&Key::new("name"), "value", None).await.expect("written");
        let made = printed(&data, false, Action::Backup { out: backup.clone() }).expect("a copy of a running node");
        assert!(made.starts_with(&format!("Made {}.", backup.display())), "{made}");
        let held = printed(&data, true, Action::Export).expect("an export");
        assert!(held.contains(r#""key":"bmFtZQ==""#) && held.contains(r#""value":"dmFsdWU=""#), "{held}");
        let dumped = printed(&data, true, Action::Dump).expect("a dump");
        assert!(dumped.lines().count() > 1 && dumped.lines().all(|line| line.starts_with(r#"{"lsn":"#)), "{dumped}");
        let refused = printed(&data, false, Action::Compact).expect_err("the node runs");
        assert!(refused.to_string().contains("stop that one"), "{refused}");
        node.stop().await;

        let checked = printed(&data, false, Action::Check).expect("a whole directory");
        assert!(checked.starts_with("Nothing is wrong") && checked.contains("1 registers"), "{checked}");
        let told = printed(&restored, false, Action::Restore(all(&backup))).expect("restored");
        assert!(told.contains("without --join"), "{told}");
        let refused = printed(&restored, false, Action::Restore(all(&backup))).expect_err("it is there");
        assert!(refused.to_string().contains("is not empty"), "{refused}");
        let compacted = printed(&restored, true, Action::Compact).expect("compacted");
        assert!(compacted.contains(r#""records":0,"#) && compacted.contains(r#""registers":1}"#), "{compacted}");
        assert_eq!(printed(&restored, false, Action::Export).expect("an export"), held);
        let node = alone(&restored);
        let store = node.handle().within(std::time::Duration::from_secs(30));
        assert_eq!(store.get(&Key::new("name")).await, Ok(Some(b"value".to_vec())));
        node.stop().await;
    }

    #[test]
    fn damage_is_told_with_its_place_and_the_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("IDENTITY"), "nonsense").expect("written");
        let refused = printed(folder.path(), false, Action::Check).expect_err("damaged").to_string();
        assert!(refused.contains("IDENTITY") && refused.contains("filled by its peers"), "{refused}");
    }
}
