//! Packets that wait to be sent to one address: so many, and so many bytes.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Most packets that wait for one address.
pub(super) const QUEUE_PACKETS: usize = 64;

/// Most bytes that wait for one address: four of the longest packets.
pub(super) const QUEUE_BYTES: usize = 4 << 20;

/// A queue that many fill without waiting and one empties.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    knocked: Notify,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Bytes>,
    bytes: usize,
    /// The round trip of its connection, as of the last packet.
    rtt: Option<Duration>,
    /// The one who empties it does something else than wait for a packet.
    busy: bool,
    closed: bool,
}

impl Queue {
    /// Adds a packet; false if it does not fit.
    pub(super) fn push(&self, packet: Bytes) -> bool {
        let mut state = self.lock();
        let fits = state.packets.len() < QUEUE_PACKETS && state.bytes + packet.len() <= QUEUE_BYTES && !state.closed;
        if fits {
            state.bytes += packet.len();
            state.packets.push_back(packet);
            self.changed.notify_one();
        }
        fits
    }

    /// The next packet, or none once the queue is closed and empty.
    ///
    /// # Cancel safety
    /// Safe: no packet is lost.
    pub(super) async fn pop(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                state.busy = false;
                if let Some(packet) = state.packets.pop_front() {
                    state.bytes -= packet.len();
                    state.busy = true;
                    return Some(packet);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Notes how long a round trip takes, or that there is no connection.
    pub(super) fn note_rtt(&self, rtt: Option<Duration>) {
        self.lock().rtt = rtt;
    }

    /// The round trip of its connection, if there is one.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.lock().rtt
    }

    /// Throws away what waits; tells how many packets that were.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.lock();
        state.bytes = 0;
        std::mem::take(&mut state.packets).len()
    }

    /// Tells the one who empties it that the node at the address lives: a connection of it has come in.
    pub(super) fn knock(&self) {
        self.knocked.notify_waiters();
    }

    /// Waits for the next [`Self::knock`].
    pub(super) async fn knocked(&self) {
        self.knocked.notified().await;
    }

    /// Takes no more packets.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Whether nothing waits and nothing is done.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.packets.is_empty() && !state.busy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_beyond_the_count_or_the_bytes_does_not_fit() {
        let queue = Queue::default();
        assert_eq!((0..100).filter(|_| queue.push(Bytes::from_static(b"x"))).count(), QUEUE_PACKETS);
        assert_eq!(queue.clear(), QUEUE_PACKETS);
        let long = Bytes::from(vec![0; QUEUE_BYTES / 4]);
        assert_eq!((0..100).filter(|_| queue.push(long.clone())).count(), 4);
        assert!(!queue.push(Bytes::from_static(b"x")));
        assert_eq!(queue.pop().await.map(|packet| packet.len()), Some(QUEUE_BYTES / 4));
        assert!(queue.push(Bytes::from_static(b"x")), "there is room again");
    }

    #[tokio::test]
    async fn a_queue_is_busy_from_a_packet_until_the_next_is_asked_for() {
        let queue = Queue::default();
        assert!(queue.is_idle());
        assert!(queue.push(Bytes::from_static(b"x")) && !queue.is_idle());
        assert!(queue.pop().await.is_some() && !queue.is_idle());
        queue.close();
        assert_eq!(queue.pop().await, None);
        assert!(queue.is_idle() && !queue.push(Bytes::from_static(b"x")));
    }
}
