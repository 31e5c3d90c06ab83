//! The nodes that a client has heard of: a bounded table with aging. PURE: the time is an argument.

use super::random::Random;
use crate::backoff::Backoff;
use specter_wire::{id::NodeId, link::Neighbour};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Addresses of nodes, what was measured of them and when each may be dialled next.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: Vec<Place>,
}

/// One address.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    /// Who answers there, once told or seen.
    pub(super) node: Option<NodeId>,
    /// Whether the apex leads there.
    listed: bool,
    /// Whether a node has ever answered there.
    reached: bool,
    heard_at: Instant,
    /// Place in the order in which addresses are tried that nothing else sorts.
    order: u32,
    /// Measured last, and when.
    pub(super) rtt: Option<(Duration, Instant)>,
    pub(super) backoff: Backoff,
    not_before: Instant,
    /// Until when it is left alone, unless there is no link: the node was going away, or never was seen.
    avoided_until: Option<Instant>,
    /// Whether the node is new, or comes back, and has probably fewer links than others.
    pub(super) fresh: bool,
}

impl Place {
    fn new(address: SocketAddr, now: Instant, order: u32) -> Self {
        Self {
            address,
            node: None,
            listed: false,
            reached: false,
            heard_at: now,
            order,
            rtt: None,
            backoff: Backoff::default(),
            not_before: now,
            avoided_until: None,
            fresh: false,
        }
    }

    /// From when on it may be dialled; an avoided node only if `pressed`.
    pub(super) fn ready_at(&self, pressed: bool) -> Instant {
        match self.avoided_until {
            Some(until) if !pressed => self.not_before.max(until),
            Some(_) | None => self.not_before,
        }
    }

    /// What is dialled first: who is not going away, did not fail, is on a machine without a link, is near, in this order.
    pub(super) fn rank(&self, now: Instant, is_crowded: bool) -> impl Ord + use<> {
        let avoided = self.avoided_until.is_some_and(|until| now < until);
        let rtt = self.rtt.map_or(Duration::MAX, |(rtt, _)| rtt);
        (avoided, self.backoff.failures() > 0, is_crowded, rtt, self.order)
    }

    /// Whether nothing is known of its distance, or nothing recent.
    pub(super) fn is_unmeasured(&self, now: Instant) -> bool {
        self.rtt.is_none_or(|(_, at)| now.saturating_duration_since(at) >= STALE)
    }
}

impl Known {
    /// Every address, in no order.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// An address.
    pub(super) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.address == address)
    }

    /// How many nodes there are, as far as they are told apart.
    pub(super) fn nodes(&self) -> usize {
        let mut nodes: Vec<NodeId> = self.places.iter().filter_map(|place| place.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len()
    }

    /// Takes what the apex leads to, instead of what it led to before. In the order of the system families alternate
    /// (RFC 8305 §4); within one family it is drawn, so that clients spread over the nodes.
    pub(super) fn list(&mut self, now: Instant, addresses: &[SocketAddr], random: &mut Random, open: &[SocketAddr]) {
        for place in &mut self.places {
            place.listed = false;
        }
        let preferred = addresses.first().map(SocketAddr::is_ipv6);
        for address in addresses.iter().take(LISTED) {
            let other_family = u32::from(Some(address.is_ipv6()) != preferred);
            // Even numbers for the one family, odd ones for the other.
            let order = random.below(ORDERS) * 2 + other_family;
            if self.get_mut(*address).is_none() && self.make_room(open) {
                self.places.push(Place::new(*address, now, order));
            }
            if let Some(place) = self.get_mut(*address) {
                place.listed = true;
                place.heard_at = now;
            }
        }
    }

    /// Takes what a node at `teller` says about others. Addresses that cannot be dialled, or lie nearer to this machine
    /// than the teller does, are no business of a node and are left out.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        teller: SocketAddr,
        neighbours: &[Neighbour],
        random: &mut Random,
        (open, settled): (&[SocketAddr], bool),
    ) {
        let limit = reach(teller.ip()).unwrap_or(Reach::World);
        for neighbour in neighbours {
            let address: SocketAddr = neighbour.address.into();
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if address.port() == 0 || reach(address.ip()).is_none_or(|reach| reach < limit) {
                continue;
            }
            if self.get_mut(address).is_none() && self.make_room(open) {
                let mut place = Place::new(address, now, random.below(ORDERS) * 2);
                place.fresh = settled;
                self.places.push(place);
            }
            if let Some(place) = self.get_mut(address) {
                place.heard_at = now;
                // Who was seen there oneself is not overruled by hearsay while it is in use.
                if place.node.is_none() || !open.contains(&address) {
                    place.node = Some(neighbour.node);
                }
            }
        }
    }

    /// A node answered at an address.
    pub(super) fn reached(&mut self, now: Instant, address: SocketAddr, node: NodeId, rtt: Duration) {
        if let Some(place) = self.get_mut(address) {
            place.node = Some(node);
            place.reached = true;
            place.rtt = Some((rtt, now));
            place.avoided_until = None;
        }
    }

    /// A link to an address failed or ended. `open` says whether others live: then what never works is forgotten.
    pub(super) fn failed(&mut self, now: Instant, address: SocketAddr, random: &mut Random, open: bool) {
        let Some(place) = self.get_mut(address) else { return };
        let delay = place.backoff.delay(random.next());
        place.not_before = now + delay;
        place.fresh = true;
        if open && !place.reached {
            // Perhaps a family of addresses that does not work here. It is not worth much while there are links.
            place.avoided_until = Some(now + delay * STRANGE);
        }
        if open && !place.listed && place.backoff.failures() >= FORGET {
            self.places.retain(|place| place.address != address);
        }
    }

    /// A node said that it goes away.
    pub(super) fn avoid(&mut self, until: Instant, node: NodeId) {
        for place in self.places.iter_mut().filter(|place| place.node == Some(node)) {
            place.avoided_until = Some(until);
            place.fresh = true;
        }
    }

    /// Forgets failures: the world may have changed meanwhile.
    pub(super) fn forgive(&mut self, now: Instant) {
        for place in &mut self.places {
            place.backoff = Backoff::default();
            place.not_before = now;
            place.avoided_until = None;
        }
    }

    /// Makes room for one more at the cost of who was never reached or, if there is none, was heard of longest ago.
    fn make_room(&mut self, open: &[SocketAddr]) -> bool {
        if self.places.len() < KNOWN {
            return true;
        }
        let free = |place: &&Place| !place.listed && !open.contains(&place.address);
        let worst = self.places.iter().filter(free).min_by_key(|place| (place.reached, place.heard_at));
        let Some(address) = worst.map(|place| place.address) else { return false };
        self.places.retain(|place| place.address != address);
        true
    }
}

/// How far off an address lies at least. Nearer ones are less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    Machine,
    Site,
    World,
}

/// None for what names no single machine.
fn reach(ip: IpAddr) -> Option<Reach> {
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(Reach::Machine);
    }
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // RFC 6598: between a provider's router and its customers.
            let carrier = first == 100 && (64..128).contains(&second);
            if first == 0 || first >= 240 {
                None
            } else if ip.is_private() || ip.is_link_local() || carrier {
                Some(Reach::Site)
            } else {
                Some(Reach::World)
            }
        }
        // A link-local address says nothing without the name of an interface.
        IpAddr::V6(ip) if ip.is_unicast_link_local() => None,
        IpAddr::V6(ip) if ip.is_unique_local() => Some(Reach::Site),
        IpAddr::V6(_) => Some(Reach::World),
    }
}

/// Most addresses in the table.
pub(super) const KNOWN: usize = 64;

/// Most addresses taken from a lookup of the apex.
const LISTED: usize = 16;

/// Failures in a row after which an address is forgotten that the apex does not lead to.
const FORGET: u32 = 8;

/// How many times longer an address waits that never answered, while there are links.
const STRANGE: u32 = 16;

/// After this time a distance counts as unknown again.
const STALE: Duration = Duration::from_secs(6 * 3600);

/// Enough that two addresses seldom draw the same.
const ORDERS: u32 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use specter_wire::address::Address;

    fn told(address: &str) -> Neighbour {
        let address: SocketAddr = address.parse().expect(address);
        Neighbour { node: NodeId([1; 16]), address: Address::from(address) }
    }

    fn heard(teller: &str, address: &str) -> bool {
        let mut known = Known::default();
        let (teller, mut random) = (teller.parse().expect(teller), Random::new(1));
        known.hear(Instant::now(), teller, &[told(address)], &mut random, (&[], false));
        !known.places().is_empty()
    }

    #[test]
    fn a_node_names_no_address_that_is_nearer_than_itself_or_no_machine() {
        for address in ["192.0.2.1:443", "[2001:db8::1]:443"] {
            assert!(heard("198.51.100.1:443", address) && heard("10.0.0.1:1", address), "{address}");
        }
        let near = ["10.0.0.2:443", "192.168.1.1:53", "169.254.169.254:80", "100.64.0.1:1", "[fd00::1]:443"];
        for address in near {
            assert!(!heard("198.51.100.1:443", address), "{address}");
            assert!(heard("10.0.0.1:443", address), "{address}");
        }
        for address in ["127.0.0.1:443", "[::1]:443", "[::ffff:127.0.0.1]:443"] {
            assert!(!heard("10.0.0.1:443", address) && heard("127.0.0.1:1", address), "{address}");
        }
        for address in
            ["0.0.0.0:443", "224.0.0.1:443", "255.255.255.255:1", "[ff02::1]:1", "[fe80::1]:1", "192.0.2.1:0"]
        {
            assert!(!heard("127.0.0.1:443", address), "{address}");
        }
    }

    #[test]
    fn hearsay_pushes_out_neither_what_the_apex_leads_to_nor_what_was_reached() {
        let (mut known, mut random, now) = (Known::default(), Random::new(1), Instant::now());
        let apex: SocketAddr = "192.0.2.1:443".parse().expect("an address");
        let friend = "192.0.2.2:443";
        known.list(now, &[apex], &mut random, &[]);
        known.hear(now, apex, &[told(friend)], &mut random, (&[], false));
        known.reached(now, friend.parse().expect(friend), NodeId([2; 16]), Duration::from_millis(1));
        for port in 1..10_000_u16 {
            known.hear(now, apex, &[told(&format!("203.0.113.1:{port}"))], &mut random, (&[], false));
            assert!(known.places().len() <= KNOWN);
        }
        assert!(known.get_mut(apex).is_some() && known.get_mut(friend.parse().expect(friend)).is_some());
    }

    #[test]
    fn what_never_answers_is_forgotten_while_a_link_lives_and_only_then() {
        let (mut known, mut random, now) = (Known::default(), Random::new(1), Instant::now());
        let apex: SocketAddr = "192.0.2.1:443".parse().expect("an address");
        let dead: SocketAddr = "192.0.2.2:443".parse().expect("an address");
        known.list(now, &[apex], &mut random, &[]);
        known.hear(now, apex, &[told("192.0.2.2:443")], &mut random, (&[], false));
        for _ in 0..100 {
            known.failed(now, apex, &mut random, false);
            known.failed(now, dead, &mut random, false);
        }
        assert_eq!(known.places().len(), 2);
        known.failed(now, apex, &mut random, true);
        known.failed(now, dead, &mut random, true);
        assert_eq!(known.places().len(), 1);
    }
}
