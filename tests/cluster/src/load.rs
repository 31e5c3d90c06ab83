//! A steady load of visitors through every gateway: how many requests failed, and the longest time that one visitor waited.
//!
//! A visitor wants a page at a steady pace, one hostname of its share after the other, mostly on kept connections. It has all
//! gateways' addresses, as a name with several has, and prefers its own: where nobody listens it goes on to the next. After
//! an error it tries again, for a second, and again when it is the hostname's turn. What it waited for a hostname from first
//! wanting it to being served is a *gap*.

use crate::{
    Outcome,
    visitor::{Browser, Connection, Miss},
};
use rustls_pki_types::CertificateDer;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Visitors of each gateway.
    pub visitors: usize,
    /// Time between the requests of one visitor.
    pub every: Duration,
}

/// A load that runs. It ends when dropped.
pub struct Load {
    state: Arc<Mutex<State>>,
    _visitors: JoinSet<()>,
}

/// What the visitors of one gateway saw.
#[derive(Clone, Default, Debug)]
pub struct Seen {
    /// Pages that were wanted and served.
    pub served: usize,
    /// Errors that a visitor saw.
    pub failed: usize,
    /// Pages of somebody else.
    pub wrong: usize,
    /// Requests that were sent again on a new connection, as browsers do.
    pub again: usize,
    /// Requests that went to another gateway because nobody listened at this one.
    pub moved: usize,
    /// The longest time from wanting a page to having it.
    pub gap: Duration,
    /// When that began, since the report before, and which hostname it was.
    pub gap_at: (Duration, String),
    /// Pages that were waited for longer than [`SLOW`].
    pub slow: usize,
    /// Errors by what they said.
    pub errors: BTreeMap<String, usize>,
    /// Time of the first and the last error since the report before.
    pub between: Option<(Duration, Duration)>,
}

/// A wait that a person notices.
pub const SLOW: Duration = Duration::from_millis(500);

struct State {
    since: Instant,
    seen: Vec<Seen>,
    /// For each visitor, the hostnames that it wants and since when.
    waiting: Vec<BTreeMap<String, Instant>>,
}

/// Different errors that are kept.
const ERRORS: usize = 64;

/// After an error a visitor tries again this much later.
const PAUSE: Duration = Duration::from_millis(20);

/// For this long a visitor tries again before it wants another page.
const PERSISTENCE: Duration = Duration::from_secs(1);

/// One request in so many is that of a new visitor: a new connection. A prime, so that every hostname has its turn.
const NEW: usize = 17;

impl Load {
    /// Starts visitors of all gateways for all hostnames.
    ///
    /// # Errors
    /// If that is no authority.
    pub fn start(
        gateways: &[SocketAddr],
        hosts: &[String],
        authority: &CertificateDer<'static>,
        pace: Pace,
    ) -> Outcome<Self> {
        let browser = Browser::new(authority)?;
        let count = gateways.len() * pace.visitors;
        let state = State {
            since: Instant::now(),
            seen: vec![Seen::default(); gateways.len()],
            waiting: vec![BTreeMap::new(); count],
        };
        let state = Arc::new(Mutex::new(state));
        let mut visitors = JoinSet::new();
        for number in 0..count {
            // Each visitor of a gateway has its own part of the hostnames.
            let part = number / gateways.len() % hosts.len().max(1);
            let own: Vec<String> =
                hosts.iter().skip(part).step_by(pace.visitors.min(hosts.len()).max(1)).cloned().collect();
            let visitor = Visitor {
                number,
                home: number % gateways.len(),
                gateways: gateways.to_vec(),
                hosts: own,
                browser: browser.clone(),
                kept: HashMap::new(),
                state: state.clone(),
            };
            visitors.spawn(visitor.run(pace.every, pace.every.mul_f64(number as f64 / count as f64)));
        }
        Ok(Self { state, _visitors: visitors })
    }

    /// What was seen at each gateway since the start or the last report. Who still waits is in the gaps.
    pub fn report(&self) -> Vec<Seen> {
        let mut state = lock(&self.state);
        let (now, since) = (Instant::now(), state.since);
        let gateways = state.seen.len();
        let mut seen = std::mem::replace(&mut state.seen, vec![Seen::default(); gateways]);
        for (number, waiting) in state.waiting.iter().enumerate() {
            for (host, start) in waiting {
                seen[number % gateways].waited(now - *start, *start, since, host);
            }
        }
        state.since = now;
        seen
    }

    /// Forgets what was seen so far.
    pub fn forget(&self) {
        self.report();
    }
}

impl Seen {
    /// The sum of several.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for seen in all {
            sum.served += seen.served;
            sum.failed += seen.failed;
            sum.wrong += seen.wrong;
            sum.again += seen.again;
            sum.moved += seen.moved;
            sum.slow += seen.slow;
            if seen.gap > sum.gap {
                (sum.gap, sum.gap_at) = (seen.gap, seen.gap_at.clone());
            }
            for (error, count) in &seen.errors {
                *sum.errors.entry(error.clone()).or_default() += count;
            }
            sum.between = match (sum.between, seen.between) {
                (Some((from, to)), Some((start, end))) => Some((from.min(start), to.max(end))),
                (between, None) | (None, between) => between,
            };
        }
        sum
    }

    fn waited(&mut self, gap: Duration, start: Instant, since: Instant, host: &str) {
        self.slow += usize::from(gap > SLOW);
        if gap > self.gap {
            self.gap = gap;
            self.gap_at = (start.saturating_duration_since(since), host.to_owned());
        }
    }

    fn error(&mut self, error: String, at: Duration) {
        self.between = Some((self.between.map_or(at, |(first, _)| first), at));
        if self.errors.len() < ERRORS || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Visitor {
    number: usize,
    home: usize,
    gateways: Vec<SocketAddr>,
    hosts: Vec<String>,
    browser: Browser,
    /// Connections to the home gateway by hostname.
    kept: HashMap<usize, Connection>,
    state: Arc<Mutex<State>>,
}

impl Visitor {
    async fn run(mut self, every: Duration, lag: Duration) {
        sleep(lag).await;
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Visitors of different gateways are at different places of the list, so that each hostname is asked for all the time.
        for turn in self.home * self.hosts.len() / self.gateways.len().. {
            ticks.tick().await;
            self.want(turn).await;
        }
    }

    /// Wants a page of a hostname, which may have been wanted in vain before.
    async fn want(&mut self, turn: usize) {
        let (now, index) = (Instant::now(), turn % self.hosts.len());
        let start = *lock(&self.state).waiting[self.number].entry(self.hosts[index].clone()).or_insert(now);
        let path = format!("/{}/{turn}", self.number);
        let mut gateway = self.home;
        while now.elapsed() < PERSISTENCE {
            let miss = self.attempt(index, gateway, &path, turn.is_multiple_of(NEW)).await.err();
            self.note(index, start, miss.as_ref());
            match miss {
                None => return,
                Some(Miss::Stale) => {}
                Some(Miss::Refused) => {
                    gateway = (gateway + 1) % self.gateways.len();
                    if gateway == self.home {
                        // All refuse: a breath before the next round.
                        sleep(PAUSE).await;
                    }
                }
                Some(Miss::Failed(_) | Miss::Wrong(_)) => sleep(PAUSE).await,
            }
        }
    }

    fn note(&self, index: usize, start: Instant, miss: Option<&Miss>) {
        let mut state = lock(&self.state);
        let since = state.since;
        let seen = &mut state.seen[self.home];
        match miss {
            None => {
                seen.served += 1;
                seen.waited(start.elapsed(), start, since, &self.hosts[index]);
                state.waiting[self.number].remove(&self.hosts[index]);
            }
            Some(Miss::Refused) => seen.moved += 1,
            Some(Miss::Stale) => seen.again += 1,
            Some(Miss::Failed(error)) => {
                seen.failed += 1;
                seen.error(error.clone(), since.elapsed());
            }
            Some(Miss::Wrong(answer)) => {
                seen.wrong += 1;
                seen.error(format!("WRONG {answer}"), since.elapsed());
            }
        }
    }

    async fn attempt(&mut self, index: usize, gateway: usize, path: &str, is_new: bool) -> Result<(), Miss> {
        let kept = if is_new || gateway != self.home { None } else { self.kept.remove(&index) };
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.browser.connect(self.gateways[gateway], &self.hosts[index]).await?,
        };
        connection.visit(path).await?;
        if gateway == self.home && connection.is_open() {
            self.kept.insert(index, connection);
        }
        Ok(())
    }
}

/// Visits every hostname through every gateway, each until it is served, and tells how long the last took.
///
/// # Errors
/// Who was not served in time and why, or was given a wrong page.
pub async fn sweep(
    gateways: &[SocketAddr],
    hosts: &[String],
    authority: &CertificateDer<'static>,
    limit: Duration,
) -> Outcome<Duration> {
    let (browser, start) = (Browser::new(authority)?, Instant::now());
    let mut visits = JoinSet::new();
    for gateway in gateways {
        for host in hosts {
            let (browser, gateway, host) = (browser.clone(), *gateway, host.clone());
            visits.spawn(async move {
                let last = Mutex::new(None);
                let served = timeout(limit, async {
                    loop {
                        match browser.visit(gateway, &host, "/sweep").await {
                            Ok(()) => return Ok(()),
                            Err(Miss::Wrong(answer)) => return Err(format!("a wrong page: {answer}")),
                            Err(miss) => *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(miss),
                        }
                        sleep(PAUSE).await;
                    }
                });
                let late = |_| {
                    let last = last.lock().unwrap_or_else(PoisonError::into_inner).take();
                    Err(format!("{host} is not served at {gateway} after {limit:?}, last {last:?}"))
                };
                served.await.unwrap_or_else(late)
            });
        }
    }
    let (mut failed, mut first) = (0, None);
    while let Some(visit) = visits.join_next().await {
        if let Err(sentence) = visit? {
            failed += 1;
            first.get_or_insert(sentence);
        }
    }
    match first {
        None => Ok(start.elapsed()),
        Some(first) => Err(format!("{failed} of {} not served; {first}", gateways.len() * hosts.len()).into()),
    }
}
