//! Which nodes to keep links to. PURE: what happened and the time go in, decisions come out. Driven by `tunnel`.
//!
//! ```text
//! Dial → welcomed → Serve → published … draining | Leave → ended        (or, when it is not needed: Close)
//! ```
//! As long as links are missing, the best address of a node that has none is dialled, and another one a moment later if
//! there is no answer yet. With all links up, now and then one more is tried: a node of unknown distance, a new one or
//! one that came back. It takes the place of a link if it is clearly nearer, or by lot, so that new nodes get their
//! share; the old link is left only when the new one serves. In the same order a link over TCP goes back to UDP. Links
//! are kept to different machines, as far as addresses tell: what is nearer never brings two of them to one.

use specter_wire::{id::NodeId, link::Neighbour};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

mod improve;
mod known;
mod random;
#[cfg(test)]
mod tests;
mod ways;

use crate::backoff::Backoff;
use known::{Known, Place};
use random::Random;
use ways::Ways;
pub(crate) use ways::{Plan, Transport, Way};

/// Number of a link of this client, never used again.
pub(crate) type LinkNumber = u32;

/// What the driver is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// Look the apex up, then call [`Links::resolved`].
    LookUp,
    /// Open a link and greet, then call [`Links::welcomed`] or [`Links::ended`]. `stranger` asks for an instance number
    /// of its own: the node may be one that has a link, and must not take this one for its successor.
    Dial { link: LinkNumber, address: SocketAddr, stranger: bool, plan: Plan },
    /// Publish on a link that was welcomed.
    Serve(LinkNumber),
    /// Publish there no longer, and close when the last stream has ended.
    Leave(LinkNumber),
    /// Close at once.
    Close(LinkNumber),
}

/// All links of a client, and the nodes it knows.
#[derive(Debug)]
pub(crate) struct Links {
    wanted: usize,
    /// Whether certificate and hostnames are there. Until then there is one link, which asks for them.
    ready: bool,
    known: Known,
    ways: Ways,
    open: Vec<Open>,
    last: LinkNumber,
    random: Random,
    dialled_at: Option<Instant>,
    /// Since when any link serves.
    served_at: Option<Instant>,
    lookup: Lookup,
    /// When to see whether there is a better node.
    improve_at: Option<Instant>,
    wake_at: Option<Instant>,
    decisions: VecDeque<Decision>,
}

#[derive(Debug, Default)]
struct Lookup {
    running: bool,
    ended_at: Option<Instant>,
    not_before: Option<Instant>,
    backoff: Backoff,
}

#[derive(Clone, Debug)]
struct Open {
    link: LinkNumber,
    address: SocketAddr,
    /// Expected while it is dialled, known from the welcome on.
    node: Option<NodeId>,
    stage: Stage,
    /// As expected while it is dialled.
    way: Way,
    /// How often UDP was tried for it.
    tries: u32,
    rtt: Duration,
    /// The link to leave when this one has published.
    replaces: Option<LinkNumber>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Dialling(Purpose),
    Serving { since: Instant, published: bool },
    Leaving { since: Instant, by_node: bool },
}

/// What a link is dialled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// One is missing.
    Missing,
    /// There may be a better node.
    Better,
    /// The node of this link, which is over TCP, may be reached over UDP.
    Udp(LinkNumber),
}

impl Open {
    fn is_dialling(&self) -> bool {
        matches!(self.stage, Stage::Dialling(_))
    }

    fn is_over_tcp(&self) -> bool {
        self.way == Way::Tcp && self.is_serving()
    }

    fn is_serving(&self) -> bool {
        matches!(self.stage, Stage::Serving { .. })
    }

    fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. })
    }
}

impl Links {
    /// Knows nothing yet but how many links there should be; [`Links::decide`] begins.
    pub(crate) fn new((wanted, transport): (usize, Transport), ready: bool, seed: u64) -> Self {
        Self {
            wanted,
            ready,
            known: Known::default(),
            ways: Ways::new(transport),
            open: Vec::new(),
            last: 0,
            random: Random::new(seed),
            dialled_at: None,
            served_at: None,
            lookup: Lookup::default(),
            improve_at: None,
            wake_at: None,
            decisions: VecDeque::new(),
        }
    }

    /// The next thing to do, until None.
    pub(crate) fn poll(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// When to call [`Links::decide`] if nothing happens before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Links that serve.
    pub(crate) fn serving(&self) -> usize {
        self.open.iter().filter(|open| open.is_serving()).count()
    }

    /// The link that has served for longest.
    pub(crate) fn oldest_serving(&self) -> Option<LinkNumber> {
        self.open.iter().filter(|open| open.is_serving()).map(|open| open.link).min()
    }

    /// Links that are being opened to further nodes.
    pub(crate) fn dialling(&self) -> usize {
        let further = |open: &&Open| matches!(open.stage, Stage::Dialling(Purpose::Missing | Purpose::Better));
        self.open.iter().filter(further).count()
    }

    /// Links that there should be.
    pub(crate) fn wanted(&self) -> usize {
        if self.ready { self.wanted } else { 1 }
    }

    /// Certificate and hostnames are there, or lost.
    pub(crate) fn set_ready(&mut self, now: Instant, ready: bool) {
        self.ready = ready;
        self.decide(now);
    }

    /// What the apex leads to; nothing if it cannot be looked up.
    pub(crate) fn resolved(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.lookup.running = false;
        self.lookup.ended_at = Some(now);
        if addresses.is_empty() {
            self.lookup.not_before = Some(now + self.lookup.backoff.delay(self.random.next()));
        } else {
            self.lookup.backoff = Backoff::default();
            self.lookup.not_before = None;
            let open = self.addresses();
            self.known.list(now, addresses, &mut self.random, &open);
        }
        self.decide(now);
    }

    /// What the node of a link says about others.
    pub(crate) fn heard(&mut self, now: Instant, link: LinkNumber, neighbours: &[Neighbour]) {
        let Some(teller) = self.open.iter().find(|open| open.link == link).map(|open| open.address) else { return };
        let settled = self.served_at.is_some_and(|at| now.saturating_duration_since(at) >= SETTLED);
        let open = self.addresses();
        self.known.hear(now, teller, neighbours, &mut self.random, (&open, settled));
        self.decide(now);
    }

    /// A node answered the greeting on a link that was dialled.
    pub(crate) fn welcomed(&mut self, now: Instant, link: LinkNumber, (node, way): (NodeId, Way), rtt: Duration) {
        let udp_serves = self.open.iter().any(|open| open.is_serving() && open.way == Way::Udp);
        let twins = self.open.iter().filter(|open| open.is_serving() && open.node == Some(node));
        let twins: Vec<LinkNumber> = twins.map(|open| open.link).collect();
        let missing = self.serving() < self.wanted();
        let Some(open) = self.open.iter_mut().find(|open| open.link == link && open.is_dialling()) else { return };
        let address = open.address;
        (open.node, open.rtt, open.way) = (Some(node), rtt, way);
        // Back to UDP, and not to another link of the same node that leads there already.
        let returns = if let Stage::Dialling(Purpose::Udp(old)) = open.stage { Some(old) } else { None };
        let returns = returns.filter(|old| twins == [*old]);
        let twin = returns.is_none() && !twins.is_empty();
        self.ways.answered(now, way, udp_serves, &mut self.random);
        let fresh = self.known.get_mut(address).is_some_and(|place| std::mem::take(&mut place.fresh));
        self.known.reached(now, address, node, rtt);
        let replaces = match returns {
            Some(old) => Some(old),
            None if twin || missing => None,
            None => self.victim(address.ip(), rtt, fresh),
        };
        if twin || (!missing && replaces.is_none()) {
            self.close(link);
        } else if let Some(open) = self.open.iter_mut().find(|open| open.link == link) {
            open.stage = Stage::Serving { since: now, published: false };
            open.replaces = replaces;
            self.served_at.get_or_insert(now);
            self.decisions.push_back(Decision::Serve(link));
        }
        self.decide(now);
    }

    /// A link has published all that there is.
    pub(crate) fn published(&mut self, now: Instant, link: LinkNumber) {
        let surplus = self.serving() > self.wanted();
        let Some(open) = self.open.iter_mut().find(|open| open.link == link) else { return };
        if let Stage::Serving { published, .. } = &mut open.stage {
            *published = true;
        }
        let (replaces, node) = (open.replaces.take(), open.node);
        let old = self.open.iter_mut().find(|open| Some(open.link) == replaces && open.is_serving());
        if let Some(old) = old.filter(|old| surplus || old.node == node) {
            old.stage = Stage::Leaving { since: now, by_node: false };
            self.decisions.push_back(Decision::Leave(old.link));
            if old.node != node {
                self.improve_at = Some(now + self.random.around(CHANGE));
            }
        }
        self.decide(now);
    }

    /// The round trip of a link as it is now.
    pub(crate) fn measured(&mut self, now: Instant, link: LinkNumber, rtt: Duration) {
        if let Some(open) = self.open.iter_mut().find(|open| open.link == link && !open.is_dialling()) {
            open.rtt = rtt;
            if let Some(place) = self.known.get_mut(open.address) {
                place.rtt = Some((rtt, now));
            }
        }
    }

    /// The node of a link goes away. The link goes on until it ends.
    pub(crate) fn draining(&mut self, now: Instant, link: LinkNumber) {
        let Some(open) = self.open.iter_mut().find(|open| open.link == link && open.is_serving()) else { return };
        open.stage = Stage::Leaving { since: now, by_node: true };
        if let Some(node) = open.node {
            self.known.avoid(now + AVOID, node);
        }
        // Nobody has to end what it drains, and there is no limit to who says that it drains.
        let leaving = self.open.iter().filter(|open| open.is_leaving());
        let oldest = leaving.clone().min_by_key(|open| open.link).map(|open| open.link);
        if let (true, Some(oldest)) = (leaving.count() > LEAVING, oldest) {
            self.close(oldest);
        }
        self.ended_serving();
        self.decide(now);
    }

    /// A link ended, or none came about.
    pub(crate) fn ended(&mut self, now: Instant, link: LinkNumber) {
        let Some(index) = self.open.iter().position(|open| open.link == link) else { return };
        let open = self.open.swap_remove(index);
        if let (Stage::Serving { since, .. } | Stage::Leaving { since, .. }, Some(place)) =
            (open.stage, self.known.get_mut(open.address))
        {
            place.backoff.worked_for(now.saturating_duration_since(since));
        }
        self.ended_serving();
        match open.stage {
            Stage::Leaving { by_node: false, .. } | Stage::Dialling(Purpose::Udp(_)) => {}
            Stage::Dialling(Purpose::Missing | Purpose::Better)
            | Stage::Serving { .. }
            | Stage::Leaving { by_node: true, .. } => {
                self.known.failed(now, open.address, &mut self.random, self.served_at.is_some());
            }
        }
        self.decide(now);
    }

    /// The machine slept: what failed before says nothing any more, and whoever was dialled has forgotten it.
    pub(crate) fn woke(&mut self, now: Instant) {
        let dialling: Vec<LinkNumber> =
            self.open.iter().filter(|open| open.is_dialling()).map(|open| open.link).collect();
        for link in dialling {
            self.close(link);
        }
        self.known.forgive(now);
        self.ways.forgive(now);
        self.lookup = Lookup { running: self.lookup.running, ..Lookup::default() };
        self.decide(now);
    }

    /// Looks at what is missing at this moment.
    pub(crate) fn decide(&mut self, now: Instant) {
        self.wake_at = None;
        self.look_up(now);
        self.fill(now);
        self.improve(now);
        self.return_to_udp(now);
    }

    fn look_up(&mut self, now: Instant) {
        if self.lookup.running || self.serving() >= self.wanted() {
            return;
        }
        let pause = if self.served_at.is_none() { LOOK_UP_PRESSED } else { LOOK_UP };
        let at = self.lookup.not_before.or(self.lookup.ended_at.map(|at| at + pause)).unwrap_or(now);
        if now >= at {
            self.lookup.running = true;
            self.decisions.push_back(Decision::LookUp);
        } else {
            self.wake_by(at);
        }
    }

    /// Dials for the links that are missing.
    fn fill(&mut self, now: Instant) {
        let (serving, wanted) = (self.serving(), self.wanted());
        if serving >= wanted {
            let needless = |open: &&Open| open.stage == Stage::Dialling(Purpose::Missing);
            let needless: Vec<LinkNumber> = self.open.iter().filter(needless).map(|open| open.link).collect();
            for link in needless {
                self.close(link);
            }
            return;
        }
        let missing = wanted - serving;
        loop {
            let dialling = self.dialling();
            if dialling >= missing + HEDGES {
                return;
            }
            if let Some(at) = self.dialled_at.map(|at| at + STAGGER).filter(|at| dialling >= missing && now < *at) {
                self.wake_by(at);
                return;
            }
            let pressed = self.served_at.is_none();
            let ready = |place: &Place| self.ready_at(place, pressed).is_some_and(|at| at <= now);
            let best = self.known.places().iter().filter(|place| ready(place));
            let strange = |place: &Place| !pressed && place.node.is_none();
            let machines: Vec<IpAddr> =
                self.open.iter().filter(|open| !open.is_leaving()).map(|open| open.address.ip()).collect();
            let rank = |place: &Place| place.rank(now, machines.contains(&place.address.ip()));
            let best = best.min_by_key(|place| (strange(place), rank(place))).map(|place| place.address);
            let Some(address) = best else { break };
            self.dial(now, address, Purpose::Missing);
        }
        let pressed = self.served_at.is_none();
        let next = self.known.places().iter().filter_map(|place| self.ready_at(place, pressed)).min();
        if let Some(at) = next {
            self.wake_by(at);
        }
    }

    /// From when on an address may be dialled; None while its node has a link. Who never said which node it is may be
    /// one of those, and the nodes that serve will soon tell: it waits a moment.
    fn ready_at(&self, place: &Place, pressed: bool) -> Option<Instant> {
        let same = |open: &Open| open.address == place.address || (place.node.is_some() && open.node == place.node);
        if self.open.iter().any(|open| same(open) && !(pressed && open.is_leaving())) {
            return None;
        }
        let at = place.ready_at(pressed);
        match self.served_at {
            Some(served_at) if place.node.is_none() => Some(at.max(served_at + PATIENCE)),
            Some(_) | None => Some(at),
        }
    }

    fn dial(&mut self, now: Instant, address: SocketAddr, purpose: Purpose) {
        let node = self.known.get_mut(address).and_then(|place| place.node);
        let stranger = match node {
            Some(_) => self.open.iter().any(|open| open.node == node),
            None => !self.open.is_empty(),
        };
        self.last = self.last.wrapping_add(1);
        let link = self.last;
        let plan = if let Purpose::Udp(_) = purpose {
            Plan::trial()
        } else {
            self.dialled_at = Some(now);
            self.ways.plan(self.open.iter().filter(|open| open.is_serving()).map(|open| open.rtt).max())
        };
        self.open.push(Open {
            link,
            address,
            node,
            stage: Stage::Dialling(purpose),
            way: Way::Udp,
            tries: 0,
            rtt: Duration::ZERO,
            replaces: None,
        });
        self.decisions.push_back(Decision::Dial { link, address, stranger, plan });
    }

    fn close(&mut self, link: LinkNumber) {
        self.open.retain(|open| open.link != link);
        self.decisions.push_back(Decision::Close(link));
    }

    fn ended_serving(&mut self) {
        if self.serving() == 0 {
            self.served_at = None;
        }
        if self.serving() < self.wanted() {
            self.improve_at = None;
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|open| open.address).collect()
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Head start of each attempt before the next, as RFC 8305 §5 recommends.
const STAGGER: Duration = Duration::from_millis(250);

/// Attempts at a time beyond the links that are missing.
const HEDGES: usize = 4;

/// How long the nodes that serve have to tell who else there is, before addresses of unknown nodes are tried.
const PATIENCE: Duration = Duration::from_millis(500);

/// Pause between lookups of the apex while there is no link.
const LOOK_UP_PRESSED: Duration = Duration::from_secs(10);

/// Pause between lookups of the apex while only some links are missing: perhaps there are no more nodes.
const LOOK_UP: Duration = Duration::from_secs(300);

/// About this long nothing is tried after a link was moved.
const CHANGE: Duration = Duration::from_secs(600);

/// Links whose nodes go away, at a time.
const LEAVING: usize = 8;

/// A node that goes away is left alone for as long as a restart takes.
const AVOID: Duration = Duration::from_secs(5);

/// Nodes that are first heard of so long after the start are new ones.
const SETTLED: Duration = Duration::from_secs(30);
