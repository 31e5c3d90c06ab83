//! Room for connections: so many in all, and so many from one place in the network, so that strangers at a few addresses
//! cannot keep everybody else out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The room. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    taken: Arc<Mutex<Taken>>,
    total: usize,
    each: usize,
}

/// Places taken, by source and in all.
#[derive(Debug, Default)]
struct Taken {
    sources: HashMap<Source, usize>,
    all: usize,
}

/// A connection's place in a room, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Room,
    source: Source,
}

/// Where connections come from that are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Source {
    V4(Ipv4Addr),
    /// The first 56 bits: what one customer commonly gets, who may use any address in it.
    V6([u8; 7]),
}

impl Room {
    /// Room for `total` connections, and for `each` of one source.
    pub(crate) fn new(total: usize, each: usize) -> Self {
        Self { taken: Arc::default(), total, each }
    }

    /// A place for a connection from `address`, if there is one left.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = Source::of(address);
        let mut taken = self.lock();
        if taken.all >= self.total || taken.sources.get(&source).is_some_and(|count| *count >= self.each) {
            return None;
        }
        *taken.sources.entry(source).or_default() += 1;
        taken.all += 1;
        Some(Place { room: self.clone(), source })
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.all -= 1;
        if let Some(count) = taken.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.sources.remove(&self.source);
            }
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_source_cannot_take_the_room_of_others() {
        let room = Room::new(4, 2);
        let _first = room.enter(address("192.0.2.1")).expect("room");
        let second = room.enter(address("::ffff:192.0.2.1")).expect("room");
        assert!(room.enter(address("192.0.2.1")).is_none());
        let _other = room.enter(address("192.0.2.2")).expect("another source has room");
        drop(second);
        room.enter(address("192.0.2.1")).expect("a place that was given back is free");
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let room = Room::new(9, 1);
        let _first = room.enter(address("2001:db8:0:100::1")).expect("room");
        assert!(room.enter(address("2001:db8:0:1ff:9::2")).is_none());
        room.enter(address("2001:db8:0:200::1")).expect("the neighbour has room");
    }

    #[test]
    fn a_full_room_takes_nobody_and_an_empty_one_remembers_nothing() {
        let room = Room::new(2, 2);
        let places = [room.enter(address("192.0.2.1")), room.enter(address("192.0.2.2"))];
        assert!(room.enter(address("192.0.2.3")).is_none());
        assert_eq!(room.taken(), 2);
        drop(places);
        assert_eq!(room.taken(), 0);
        assert!(room.lock().sources.is_empty());
    }
}
