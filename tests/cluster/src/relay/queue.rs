//! Hands on what was put in when its time has come.

use std::{cmp::Reverse, collections::BinaryHeap};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, sleep_until},
};

/// Most packets on their way in one direction; more are lost.
const PACKETS: usize = 16 << 10;

/// A packet on its way.
struct Due<T> {
    at: Instant,
    number: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The end of a queue at which packets come out when they are due.
pub(super) struct Delayed<T> {
    coming: Receiver<(Instant, T)>,
    waiting: BinaryHeap<Reverse<Due<T>>>,
    number: u64,
}

/// The two ends of a queue.
pub(super) fn queue<T>() -> (Sender<(Instant, T)>, Delayed<T>) {
    let (put, coming) = channel(PACKETS);
    (put, Delayed { coming, waiting: BinaryHeap::new(), number: 0 })
}

impl<T> Delayed<T> {
    /// The next packet, once it is due; none when all senders are gone and the last packet is out.
    pub(super) async fn next(&mut self) -> Option<T> {
        let mut is_open = true;
        while is_open || !self.waiting.is_empty() {
            let next = self.waiting.peek().map(|due| due.0.at);
            tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    return self.waiting.pop().map(|due| due.0.what);
                }
                piece = self.coming.recv(), if is_open && self.waiting.len() < PACKETS => match piece {
                    Some((at, what)) => {
                        self.number += 1;
                        self.waiting.push(Reverse(Due { at, number: self.number, what }));
                    }
                    None => is_open = false,
                },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn pieces_come_out_when_they_are_due_and_equals_in_their_order() {
        let (put, mut out) = queue();
        let start = Instant::now();
        for (ms, what) in [(30, 'd'), (10, 'b'), (10, 'c'), (0, 'a')] {
            put.send((start + Duration::from_millis(ms), what)).await.expect("it is read");
        }
        drop(put);
        let mut seen = Vec::new();
        while let Some(what) = out.next().await {
            seen.push((what, start.elapsed().as_millis()));
        }
        let order: String = seen.iter().map(|(what, _)| what).collect();
        assert_eq!(order, "abcd");
        assert!((30..35).contains(&seen[3].1), "{seen:?}");
    }
}
