//! Keeps the links that `links` decides on: one task each, with orders one way and reports the other.

use super::{
    End, Event, LinkLost, Orders, Report, TunnelError, drive::Seat, random_u64, sentence, state::State, wake::Watchman,
};
use crate::{
    clock,
    config::Config,
    link::{Dialer, Link, LinkError},
    links::{Decision, LinkNumber, Links, Plan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// The one task that knows of all links.
pub(super) struct Keeper {
    state: Arc<State>,
    links: Links,
    dialer: Dialer,
    seats: BTreeMap<LinkNumber, Handle>,
    tasks: JoinSet<(LinkNumber, u32, End)>,
    /// Given to every link.
    reporter: mpsc::Sender<(LinkNumber, Report)>,
    reports: mpsc::Receiver<(LinkNumber, Report)>,
    lookup: Option<Lookup>,
    /// Which link does what only one may do.
    leader: Option<LinkNumber>,
    /// Which tunnel is published on which link.
    published: BTreeSet<(usize, LinkNumber)>,
    events: mpsc::Sender<Event>,
    told_up: usize,
    look_at: Instant,
    watchman: Watchman,
    stop: CancellationToken,
}

type Lookup = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, LinkError>> + Send>>;

/// The keeper's end of a link.
struct Handle {
    orders: watch::Sender<Orders>,
    /// From the welcome on.
    opened: Option<Link>,
    /// Datagrams that had come when the machine woke; more of them show that the link lives.
    heard: Option<u64>,
}

/// What happens to the keeper.
enum Happening {
    Stop,
    Report(LinkNumber, Report),
    Ended(Result<(LinkNumber, u32, End), JoinError>),
    LookedUp(Result<Vec<SocketAddr>, LinkError>),
    Time,
}

impl Keeper {
    pub(super) fn new(
        state: Arc<State>,
        config: &Config,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let (reporter, reports) = mpsc::channel(REPORTS);
        Self {
            links: Links::new((config.links, config.transport), state.is_complete(), random_u64()),
            dialer: Dialer::new(state.apex.clone(), config.memory),
            state,
            seats: BTreeMap::new(),
            tasks: JoinSet::new(),
            reporter,
            reports,
            lookup: None,
            leader: None,
            published: BTreeSet::new(),
            events,
            told_up: 0,
            look_at: now + LOOK,
            watchman: Watchman::new(now, SystemTime::now()),
            stop,
        }
    }

    /// Keeps links until it is told to stop.
    pub(super) async fn run(mut self) -> Result<(), TunnelError> {
        let outcome = self.keep().await;
        self.stop.cancel();
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => {
                    let Some(ended) = ended else { break };
                    if let (_, _, End::Fatal(error)) = joined(ended) {
                        warn!(reason = sentence(&error), "a link ended badly");
                    }
                }
                // Nobody who has something to report is to wait for ever.
                _ = self.reports.recv() => {}
            }
        }
        self.dialer.finish().await;
        outcome
    }

    async fn keep(&mut self) -> Result<(), TunnelError> {
        self.links.decide(Instant::now());
        loop {
            while let Some(decision) = self.links.poll() {
                self.carry_out(decision)?;
            }
            self.tell_up().await;
            match self.next().await {
                Happening::Stop => return Ok(()),
                Happening::Report(link, report) => self.reported(link, report).await,
                Happening::Ended(ended) => {
                    let (link, generation, end) = joined(ended);
                    self.ended(link, generation, end).await?;
                }
                Happening::LookedUp(found) => {
                    self.lookup = None;
                    let addresses = match found {
                        Ok(addresses) => addresses,
                        Err(error) => {
                            self.links.resolved(Instant::now(), &[]);
                            self.failed(&error.into(), true).await;
                            continue;
                        }
                    };
                    self.links.resolved(Instant::now(), &addresses);
                }
                Happening::Time => self.look(),
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let wake_at = self.links.wake_at().map_or(self.look_at, |at| at.min(self.look_at));
        tokio::select! {
            () = self.stop.cancelled() => Happening::Stop,
            Some((link, report)) = self.reports.recv() => Happening::Report(link, report),
            Some(ended) = self.tasks.join_next() => Happening::Ended(ended),
            found = at_hand(&mut self.lookup) => Happening::LookedUp(found),
            () = sleep_until(wake_at.into()) => Happening::Time,
        }
    }

    fn carry_out(&mut self, decision: Decision) -> Result<(), TunnelError> {
        match decision {
            Decision::LookUp => self.lookup = Some(Box::pin(self.dialer.look_up())),
            Decision::Dial { link, address, stranger, plan } => self.dial(link, (address, plan), stranger)?,
            Decision::Serve(link) => {
                let lead = *self.leader.get_or_insert(link) == link;
                self.order(link, |orders| (orders.serve, orders.lead) = (true, lead));
            }
            Decision::Leave(link) => {
                info!(link, "leaving this link for a better one");
                self.unpublish(link);
                self.order(link, |orders| orders.leave = true);
                self.pass_lead(link);
            }
            Decision::Close(link) => {
                self.unpublish(link);
                self.order(link, |orders| orders.close = true);
                self.pass_lead(link);
            }
        }
        Ok(())
    }

    fn dial(
        &mut self,
        link: LinkNumber,
        (address, plan): (SocketAddr, Plan),
        stranger: bool,
    ) -> Result<(), TunnelError> {
        debug!(link, %address, ?plan, "dialling");
        let credentials = self.state.credentials(&self.dialer)?;
        let dial = self.dialer.dial(address, credentials.settings, plan);
        let instance = if stranger { random_u64() } else { self.state.instance() };
        let (orders, ordered) = watch::channel(Orders::default());
        let seat = Seat {
            link,
            state: self.state.clone(),
            orders: ordered,
            reports: self.reporter.clone(),
            stop: self.stop.clone(),
        };
        self.seats.insert(link, Handle { orders, opened: None, heard: None });
        self.tasks.spawn(async move { (link, credentials.generation, seat.run(dial, instance).await) });
        Ok(())
    }

    async fn reported(&mut self, link: LinkNumber, report: Report) {
        let now = Instant::now();
        match report {
            Report::Welcomed { node, opened } => {
                let (rtt, way) = (opened.connection.rtt(), opened.way());
                let address = opened.connection.remote_address();
                debug!(link, %node, %address, ?rtt, ?way, "a node answers");
                if let Some(handle) = self.seats.get_mut(&link) {
                    handle.opened = Some(opened);
                }
                self.links.welcomed(now, link, (node, way), rtt);
            }
            Report::Ready => self.links.set_ready(now, true),
            Report::Settled => self.links.published(now, link),
            Report::Published { tunnel, url, target } => {
                let first = self.published.range((tunnel, 0)..=(tunnel, LinkNumber::MAX)).next().is_none();
                self.published.insert((tunnel, link));
                if first {
                    info!(url, target, "published");
                    self.tell(Event::Published { url, target }).await;
                }
            }
            Report::Refused { tunnel, target, reason } => {
                warn!(link, "{reason}");
                let served = self.published.range((tunnel, 0)..=(tunnel, LinkNumber::MAX)).next().is_some();
                if !served && self.leader == Some(link) {
                    self.tell(Event::Refused { target, reason }).await;
                }
            }
            Report::Neighbours(nodes) => self.links.heard(now, link, &nodes),
            Report::Draining => {
                info!(link, "the node goes away: opening another link");
                self.links.draining(now, link);
                self.pass_lead(link);
            }
        }
    }

    async fn ended(&mut self, link: LinkNumber, generation: u32, end: End) -> Result<(), TunnelError> {
        let served = self.seats.remove(&link).is_some_and(|handle| handle.orders.borrow().serve);
        self.unpublish(link);
        self.links.ended(Instant::now(), link);
        self.pass_lead(link);
        match end {
            End::Stopped | End::Closed => {}
            End::Fatal(error) => return Err(error),
            End::Lost(LinkLost::Link(LinkError::CertificateRefused { source }))
                if self.links.serving() == 0 && self.state.drop_certificate(generation) =>
            {
                warn!(%source, "the node refuses the certificate in the configuration: registering the same key again");
                self.links.set_ready(Instant::now(), false);
            }
            End::Lost(lost) => {
                if let LinkLost::Replaced = lost {
                    self.state.change_instance();
                }
                self.failed(&lost, served).await;
            }
        }
        Ok(())
    }

    /// Tells why there is no link, or one link less. An address that is silent while others are tried says nothing yet.
    async fn failed(&mut self, lost: &LinkLost, served: bool) {
        let reason = sentence(lost);
        if self.links.serving() > 0 {
            if served {
                warn!(reason, left = self.links.serving(), "a link was lost");
            } else {
                debug!(reason, "no further link");
            }
            return;
        }
        let silent = matches!(lost, LinkLost::Link(LinkError::Silent { .. }));
        if silent && self.links.dialling() > 0 {
            debug!(reason, "an address failed");
            return;
        }
        let retry_in = match self.links.wake_at() {
            Some(at) if self.links.dialling() == 0 => at.saturating_duration_since(Instant::now()),
            Some(_) | None => Duration::ZERO,
        };
        let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
        match lost {
            LinkLost::Link(LinkError::Untrusted { .. } | LinkError::UnknownName { .. } | LinkError::Version { .. }) => {
                error!(reason, retry_in_ms, "no link");
            }
            LinkLost::Link(_)
            | LinkLost::Session(_)
            | LinkLost::Control(_)
            | LinkLost::NoProof
            | LinkLost::Certificate
            | LinkLost::Exporter
            | LinkLost::Replaced => warn!(reason, retry_in_ms, "no link"),
        }
        let clock = if let LinkLost::Link(LinkError::Untrusted { .. }) = lost { clock::unset() } else { None };
        if let Some(clock) = clock {
            warn!(%clock, "this machine's clock is not set, so no certificate holds: going on as soon as it is");
        }
        self.tell(Event::Disconnected { reason, retry_in }).await;
    }

    /// Measures what is to be measured, and sees whether the machine slept or was told the time.
    fn look(&mut self) {
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + if self.links.serving() == 0 { LOOK_PRESSED } else { LOOK };
            for (link, handle) in &mut self.seats {
                let Some(Link { connection, .. }) = &handle.opened else { continue };
                self.links.measured(now, *link, connection.rtt());
                if handle.heard.take().is_some_and(|heard| heard == connection.stats().udp_rx.datagrams) {
                    debug!(link, "silent since the machine woke");
                    connection.close(0_u32.into(), b"silent");
                }
            }
            if self.watchman.woke(now, SystemTime::now()) {
                self.woke(now);
            }
        }
        self.links.decide(now);
    }

    /// Nodes have given up links whose client slept. Those that live answer at once.
    fn woke(&mut self, now: Instant) {
        info!("the clock leapt: the machine slept, or was told the time; trying every link");
        self.look_at = now + ANSWER;
        for handle in self.seats.values_mut() {
            handle.heard = handle.opened.as_ref().map(|opened| opened.connection.stats().udp_rx.datagrams);
            if let Some(opened) = &handle.opened {
                opened.ask();
            }
        }
        self.dialer.rebind();
        self.links.woke(now);
    }

    /// Gives the lead to another link if `link` has it and can no longer have it.
    fn pass_lead(&mut self, link: LinkNumber) {
        if self.leader != Some(link) {
            return;
        }
        self.order(link, |orders| orders.lead = false);
        self.leader = self.links.oldest_serving();
        if let Some(leader) = self.leader {
            self.order(leader, |orders| orders.lead = true);
        }
    }

    fn order(&self, link: LinkNumber, change: impl FnOnce(&mut Orders)) {
        if let Some(handle) = self.seats.get(&link) {
            handle.orders.send_modify(change);
        }
    }

    fn unpublish(&mut self, link: LinkNumber) {
        self.published.retain(|(_, on)| *on != link);
    }

    async fn tell_up(&mut self) {
        let up = self.links.serving();
        if up != self.told_up {
            self.told_up = up;
            info!(up, wanted = self.links.wanted(), "links");
            self.tell(Event::Links { up, wanted: self.links.wanted() }).await;
        }
    }

    async fn tell(&mut self, event: Event) {
        // Nobody has to listen.
        self.events.send(event).await.ok();
    }
}

fn joined(ended: Result<(LinkNumber, u32, End), JoinError>) -> (LinkNumber, u32, End) {
    match ended {
        Ok(ended) => ended,
        // No task is ever aborted.
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Waits for a lookup, or for ever.
async fn at_hand(lookup: &mut Option<Lookup>) -> Result<Vec<SocketAddr>, LinkError> {
    match lookup {
        Some(lookup) => lookup.await,
        None => std::future::pending().await,
    }
}

/// Reports that wait; a link waits when there are more.
const REPORTS: usize = 64;

/// Between two looks at the round trips and the clocks.
const LOOK: Duration = Duration::from_secs(5);

/// The same while there is no link: what the clock says may be all that stands in the way.
const LOOK_PRESSED: Duration = Duration::from_secs(1);

/// How long after a sleep a link may be silent.
const ANSWER: Duration = Duration::from_secs(2);
