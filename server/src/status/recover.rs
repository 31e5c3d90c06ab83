//! `specter-server ring recover`: the operator's last word for slots whose majority is gone for good.
//!
//! Nobody but a person can know that machines are gone and not merely out of reach, so without `--accept-loss` this only says
//! what stands still and what would be lost.

use std::{collections::BTreeSet, fmt::Write as _, io::Write, path::PathBuf};

use serde::Serialize;

use super::{GO_ON_ALONE, LOOK, Status, StatusError, ask, by_members, print, short};
use crate::node::Standing;

/// What `ring recover` is told.
#[derive(Debug)]
pub struct Task {
    /// The data directory of the node.
    pub data_dir: PathBuf,
    /// Whether programs read what is printed.
    pub json: bool,
    /// Whether it is to be done, whatever is lost.
    pub accept_loss: bool,
}

/// What is printed for programs. Names of fields stay as they are.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// The node that was asked.
    node: &'a str,
    /// Whether it goes on alone with these slots from now on.
    forced: bool,
    /// The slots that stand still, or did.
    slots: Vec<Stranded<'a>>,
}

#[derive(Debug, Serialize)]
struct Stranded<'a> {
    slot: u16,
    /// The members of whom nothing is heard.
    missing: Vec<&'a str>,
    /// The members that live besides this node.
    living: Vec<&'a str>,
}

/// Asks the node of a data directory which of its slots are stranded, or lets it go on alone with them, and prints what it says.
///
/// # Errors
/// [`StatusError`].
pub fn run(task: &Task, out: &mut dyn Write) -> Result<(), StatusError> {
    let Task { data_dir, json, accept_loss: forced } = task;
    let (status, _) = ask(data_dir, if *forced { GO_ON_ALONE } else { LOOK })?;
    let text = if *json {
        let report = Report { node: &status.ring.node, forced: *forced, slots: stranded(&status) };
        serde_json::to_string(&report).map_err(std::io::Error::from)? + "\n"
    } else {
        describe(&status, *forced)
    };
    print(text, out)
}

fn stranded(status: &Status) -> Vec<Stranded<'_>> {
    let alive = status.ring.members.iter().filter(|member| member.standing == Standing::Alive);
    let alive: BTreeSet<&str> = alive.map(|member| member.node.as_str()).collect();
    let slots = status.ring.slots.iter().filter(|slot| slot.stranded);
    slots
        .map(|slot| {
            let others = slot.members.iter().map(String::as_str).filter(|member| *member != status.ring.node);
            let (living, missing) = others.partition(|member| alive.contains(member));
            Stranded { slot: slot.slot, missing, living }
        })
        .collect()
}

fn describe(status: &Status, forced: bool) -> String {
    let found = stranded(status);
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line =
        |arguments: std::fmt::Arguments<'_>| text.write_fmt(arguments).and_then(|()| text.write_char('\n')).ok();
    let node = short(&status.ring.node);
    if found.is_empty() {
        line(format_args!("Of the slots that node {node} keeps, none lacks a majority. Nothing was changed."));
        return text;
    }
    for (slots, members) in by_members(status.ring.slots.iter().filter(|slot| slot.stranded)) {
        line(format_args!("slots {slots}: kept by {members}, of which too few live"));
    }
    let missing = names(found.iter().flat_map(|slot| &slot.missing));
    let living = names(found.iter().flat_map(|slot| &slot.living));
    let count = found.len();
    if forced {
        line(format_args!("Node {node} goes on alone with these {count} slots, with what is on its disk."));
        line(format_args!("Never start {missing} again on their old data directories: give them empty ones."));
        line(format_args!("Other nodes take copies by themselves; `ring status` tells when there are enough."));
        return text;
    }
    line(format_args!(
        "Nothing was changed. If one of {missing} can be started again, do that instead: nothing is lost then."
    ));
    line(format_args!(
        "With --accept-loss, node {node} goes on alone with these {count} slots, with what is on its disk:"
    ));
    line(format_args!(
        "- a write that only the missing nodes acknowledged is lost, and so is a deletion: what it deleted comes back;"
    ));
    line(format_args!(
        "- the missing nodes may never be started again on their data directories, or two sides may answer differently."
    ));
    if !living.is_empty() {
        line(format_args!(
            "Of these slots {living} lives too and may have newer writes. Recover on one node only: the one that was cut off least."
        ));
    }
    text
}

fn names<'a>(nodes: impl Iterator<Item = &'a &'a str>) -> String {
    let all: BTreeSet<&str> = nodes.map(|node| short(node)).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_flag_it_says_what_may_be_lost_and_with_it_what_must_not_be_started() {
        let mut status = super::super::tests::status();
        let asked = describe(&status, false);
        assert!(asked.starts_with("slots 7: kept by aa bb, of which too few live\nNothing was changed."), "{asked}");
        assert!(asked.contains("a write that only the missing nodes acknowledged is lost"), "{asked}");
        assert!(!asked.contains("lives too"), "{asked}");
        let done = describe(&status, true);
        assert!(
            done.contains("Never start bb again") && done.contains("aa goes on alone with these 1 slots"),
            "{done}"
        );
        status.ring.members[0].standing = Standing::Alive;
        assert!(describe(&status, false).contains("bb lives too"));
        status.ring.slots.retain(|slot| !slot.stranded);
        assert!(describe(&status, true).contains("Nothing was changed"));
    }
}
