//! While nothing is missing: whether there is a better node, or a better way to one. PURE: the time is an argument.

use super::{LinkNumber, Links, Open, Purpose, Stage, Way, known::Place};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

impl Links {
    /// Looks for a better node while nothing is missing and nothing else changes.
    pub(super) fn improve(&mut self, now: Instant) {
        let settled = |open: &Open| matches!(open.stage, Stage::Serving { published: true, .. });
        if self.serving() != self.wanted() || !self.ready || !self.open.iter().all(settled) {
            return;
        }
        let first = now + self.random.around(TRIAL);
        let at = *self.improve_at.get_or_insert(first);
        if now < at {
            self.wake_by(at);
            return;
        }
        self.improve_at = Some(first);
        let promising = |place: &&Place| {
            let Replaceable { links, apart } = self.replaceable(place.address.ip());
            let worst = links.iter().map(|(_, rtt)| *rtt).max().unwrap_or_default();
            let nearer = place.rtt.is_some_and(|(rtt, _)| is_clearly_nearer(rtt, worst));
            self.ready_at(place, false).is_some_and(|at| at <= now)
                && (place.is_unmeasured(now) || place.fresh || nearer || apart)
        };
        let best = self.known.places().iter().filter(promising);
        let best = best.min_by_key(|place| (place.rtt.is_some(), place.rank(now, false)));
        if let Some(address) = best.map(|place| place.address) {
            self.dial(now, address, Purpose::Better);
        }
        self.wake_by(first);
    }

    /// Tries now and then whether UDP gets through to a node that has a link over TCP.
    pub(super) fn return_to_udp(&mut self, now: Instant) {
        if !self.open.iter().any(Open::is_over_tcp) {
            self.ways.none_over_tcp();
            return;
        }
        let Some(at) = self.ways.try_at() else { return };
        let trial = |stage| matches!(stage, Stage::Dialling(Purpose::Udp(_) | Purpose::Better));
        let changing = |open: &Open| trial(open.stage) || open.replaces.is_some();
        if now < at {
            self.wake_by(at);
        } else if self.ready && !self.open.iter().any(changing) {
            let published = |open: &&mut Open| matches!(open.stage, Stage::Serving { published: true, .. });
            let over_tcp = self.open.iter_mut().filter(|open| open.way == Way::Tcp).filter(published);
            let Some(old) = over_tcp.min_by_key(|open| open.tries) else { return };
            old.tries += 1;
            let (address, link) = (old.address, old.link);
            self.ways.tried(now, &mut self.random);
            self.dial(now, address, Purpose::Udp(link));
            if let Some(at) = self.ways.try_at() {
                self.wake_by(at);
            }
        }
    }

    /// Which link a node of this machine, at this distance, may take the place of.
    pub(super) fn victim(&mut self, machine: IpAddr, rtt: Duration, fresh: bool) -> Option<LinkNumber> {
        if self.serving() > self.wanted() {
            return None;
        }
        let Replaceable { links, apart } = self.replaceable(machine);
        let (worst, worst_rtt) = links.iter().copied().max_by_key(|(_, rtt)| *rtt)?;
        if apart || is_clearly_nearer(rtt, worst_rtt) {
            return Some(worst);
        }
        // Of n nodes each should have links of wanted/n of the clients.
        let nodes = u32::try_from(self.known.nodes()).unwrap_or(u32::MAX).max(1);
        if !fresh || self.random.below(nodes) as usize >= self.wanted() {
            return None;
        }
        let equal: Vec<LinkNumber> =
            links.iter().filter(|(_, old)| !is_clearly_nearer(*old, rtt)).map(|(link, _)| *link).collect();
        let count = u32::try_from(equal.len()).ok().filter(|count| *count > 0)?;
        equal.get(self.random.below(count) as usize).copied()
    }

    /// What a link to this machine may take the place of so that links are on as many machines as before, or on more.
    fn replaceable(&self, machine: IpAddr) -> Replaceable {
        let serving = || self.open.iter().filter(|open| open.is_serving());
        let on = |machine: IpAddr| serving().filter(move |open| open.address.ip() == machine).count();
        let is_new = on(machine) == 0;
        let apart = is_new && serving().any(|open| on(open.address.ip()) > 1);
        let may_go = |open: &&Open| match (is_new, apart) {
            (true, false) => true,
            (true, true) => on(open.address.ip()) > 1,
            (false, _) => open.address.ip() == machine || on(open.address.ip()) > 1,
        };
        Replaceable { links: serving().filter(may_go).map(|open| (open.link, open.rtt)).collect(), apart }
    }
}

/// Links of which one may go, each with its round trip.
struct Replaceable {
    links: Vec<(LinkNumber, Duration)>,
    /// Whether the links are on more machines afterwards.
    apart: bool,
}

/// Whether a change pays: by a third and by more than what a measurement strays.
fn is_clearly_nearer(new: Duration, old: Duration) -> bool {
    new + (old * 3 / 10).max(Duration::from_millis(10)) <= old
}

/// About this long after the links are up, and then between two, another node is tried.
const TRIAL: Duration = Duration::from_secs(60);
