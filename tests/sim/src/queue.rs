//! What is due when: the only order in which anything happens.

use std::collections::BTreeMap;

/// Events by the time they are due, and by the order in which they were queued when they are due at the same time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// True time, in microseconds.
    time: u64,
    queued: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { time: 0, queued: 0, events: BTreeMap::new() }
    }

    /// True time, in microseconds.
    pub(crate) const fn time(&self) -> u64 {
        self.time
    }

    pub(crate) fn push(&mut self, after_micros: u64, event: E) {
        self.push_at(self.time.saturating_add(after_micros), event);
    }

    /// What should have been due before is due now.
    pub(crate) fn push_at(&mut self, at: u64, event: E) {
        self.queued += 1;
        self.events.insert((at.max(self.time), self.queued), event);
    }

    /// The next event that is due up to `end`; when there is none, it is `end`.
    pub(crate) fn pop_until(&mut self, end: u64) -> Option<E> {
        let due = self.events.first_entry().filter(|entry| entry.key().0 <= end);
        let Some(entry) = due else {
            self.time = self.time.max(end);
            return None;
        };
        self.time = entry.key().0;
        Some(entry.remove())
    }

    /// How many events are still to come.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_queueing() {
        let mut queue = Queue::new();
        for (after, name) in [(20, 'c'), (10, 'a'), (10, 'b'), (30, 'd')] {
            queue.push(after, name);
        }
        let seen: String = std::iter::from_fn(|| queue.pop_until(20)).collect();
        assert_eq!((seen.as_str(), queue.time(), queue.len()), ("abc", 20, 1));
        queue.push_at(5, 'e');
        assert_eq!((queue.pop_until(40), queue.time()), (Some('e'), 20), "nothing is due in the past");
    }
}
