//! What visitors notice when nodes, clients and wires fail: five nodes, fifty tunnels, and visitors at every gateway.
//!
//! Each case has nodes, clients and data of its own. [`scene`] sets it up, [`cases`] breaks something, [`partition`] cuts
//! the nodes' network in two, [`crowd`] lets thousands of clients come back at once, [`table`] prints what was seen.

mod cases;
mod crowd;
mod partition;
mod scene;
mod table;

use crate::{Outcome, args::FailoverArgs, programs::Programs};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};
use table::Row;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    /// SIGTERM of a node, and its return.
    Stop,
    /// SIGTERM and start of each node after the other.
    Rolling,
    /// SIGKILL of a node that holds links, and its return.
    KillOne,
    /// SIGKILL of the node that every client reached first.
    KillFirst,
    /// SIGKILL of two nodes at once.
    KillTwo,
    /// A node stands still for a while.
    Freeze,
    /// SIGKILL of all nodes, started again with their data.
    KillAll,
    /// SIGKILL of a client, started again.
    KillClient,
    /// The nodes' network falls into two parts and is mended.
    Partition,
    /// Thousands of clients come back at once.
    Crowd,
}

impl Case {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Stop, "stop"),
        (Self::Rolling, "rolling"),
        (Self::KillOne, "kill-one"),
        (Self::KillFirst, "kill-first"),
        (Self::KillTwo, "kill-two"),
        (Self::Freeze, "freeze"),
        (Self::KillAll, "kill-all"),
        (Self::KillClient, "kill-client"),
        (Self::Partition, "partition"),
        (Self::Crowd, "crowd"),
    ];

    async fn run(self, setting: &Setting<'_>) -> Outcome<Vec<Row>> {
        match self {
            Self::Stop => cases::stop(setting).await,
            Self::Rolling => cases::rolling(setting).await,
            Self::KillOne => cases::kill(setting, "a node killed", &[2], scene::First::Spread).await,
            Self::KillFirst => cases::kill(setting, "the first node killed", &[0], scene::First::Same).await,
            Self::KillTwo => cases::kill(setting, "two nodes killed", &[1, 2], scene::First::Spread).await,
            Self::Freeze => cases::freeze(setting).await,
            Self::KillAll => cases::kill_all(setting).await,
            Self::KillClient => cases::kill_client(setting).await,
            Self::Partition => partition::run(setting).await,
            Self::Crowd => crowd::run(setting).await,
        }
    }
}

/// What all cases share.
struct Setting<'a> {
    args: &'a FailoverArgs,
    programs: &'a Programs,
    folder: &'a Path,
}

/// A folder that no earlier run has used: data and certificates of another cluster would be in the way.
fn fresh(folder: &Path, name: &str) -> Outcome<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let names = std::iter::once(name.to_owned()).chain((2_u32..).map(|number| format!("{name}-{number}")));
    for own in names.map(|name| folder.join(name)) {
        match std::fs::create_dir(&own) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(own),
        }
    }
    Err("every folder is taken".into())
}

/// Runs the cases that are asked for and prints a table of what visitors saw.
pub(crate) async fn measure(args: &FailoverArgs, programs: &Programs, folder: &Path) -> Outcome<()> {
    let names = Case::ALL.map(|(_, name)| name);
    if let Some(unknown) = args.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(format!("there is no case {unknown}; there are {}", names.join(", ")).into());
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut rows = Vec::new();
    for (case, name) in Case::ALL.into_iter().filter(|(_, name)| wanted(name)) {
        eprintln!("{name}");
        let own = fresh(folder, name)?;
        // What one case could not do is a result, and no reason to leave out the others.
        let setting = Setting { args, programs, folder: &own };
        let seen = match case.run(&setting).await {
            Ok(seen) => seen,
            Err(error) => vec![Row::broken(name, &error.to_string())],
        };
        println!("{}", table::text(&seen));
        rows.extend(seen);
    }
    println!(
        "{} nodes, {} tunnels of {} clients, one request a visitor every {} ms, {} visitors at each gateway\n\n{}",
        args.nodes,
        args.tunnels,
        args.clients,
        args.every_ms,
        args.visitors,
        table::text(&rows)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_folder_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let names: Vec<_> = (0..3).map(|_| fresh(folder.path(), "stop").expect("a folder")).collect();
        assert_eq!(names, ["stop", "stop-2", "stop-3"].map(|name| folder.path().join(name)));
    }
}
