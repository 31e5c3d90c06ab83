//! What the kernel tells about processes: CPU time and memory, from `/proc`.

use std::{collections::BTreeSet, fs, time::Duration};

/// Linux counts CPU time of the whole machine in hundredths of a second, whatever its timer is.
const TICK: Duration = Duration::from_millis(10);

/// Time that all threads of a process have run. Threads that have ended are missing: what is measured keeps its own.
pub(crate) fn cpu(process: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let running = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(running).sum())
}

/// A process and all that it started.
pub(crate) fn family(process: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([process]);
    let mut unseen = vec![process];
    while let Some(parent) = unseen.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for task in tasks.flatten() {
            let Ok(children) = fs::read_to_string(task.path().join("children")) else { continue };
            let children = children.split_whitespace().filter_map(|text| text.parse().ok());
            unseen.extend(children.filter(|child| family.insert(*child)));
        }
    }
    family
}

/// Time that the whole machine has not been idle, over all its cores. Time stolen by a hypervisor counts as busy: it
/// disturbs just the same.
pub(crate) fn busy() -> Duration {
    let Ok(text) = fs::read_to_string("/proc/stat") else { return Duration::ZERO };
    let Some(line) = text.lines().next() else { return Duration::ZERO };
    // user nice system idle iowait irq softirq steal; guest time is in user time already.
    let ticks: Vec<u32> = line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
    let busy: u32 = ticks.iter().enumerate().filter(|(index, _)| !matches!(index, 3 | 4)).map(|(_, ticks)| ticks).sum();
    TICK * busy
}

/// Memory of a process.
#[derive(Clone, Copy, Default, Debug, serde::Serialize)]
pub(crate) struct Memory {
    /// All that is in RAM, the program's own pages with it.
    pub(crate) resident_kib: u64,
    /// What no file backs: heap and stacks.
    pub(crate) anonymous_kib: u64,
    /// The most that was in RAM at any time.
    pub(crate) peak_kib: u64,
}

/// Memory of one process, 0 if it has ended.
pub(crate) fn memory(process: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Memory {
        resident_kib: field("VmRSS:").unwrap_or(0),
        anonymous_kib: field("RssAnon:").unwrap_or(0),
        peak_kib: field("VmHWM:").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_time_and_is_its_own_family() {
        let id = std::process::id();
        assert!(memory(id).resident_kib > memory(id).anonymous_kib && memory(id).anonymous_kib > 0);
        assert!(cpu(id) > Duration::ZERO);
        assert!(busy() > Duration::ZERO);
        assert!(family(id).contains(&id));
        assert_eq!(memory(u32::MAX).resident_kib, 0);
    }
}
