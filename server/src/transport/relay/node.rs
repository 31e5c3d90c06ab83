//! One node as visitors' streams see it.

use super::{
    super::pulse::{self, Pulse},
    Sight,
};
use quinn::{Connection, RecvStream, SendStream};
use specter_wire::{error::ErrorCode, stream::PASSED_ON};
use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

/// A node that nobody has asked for in this time is forgotten, and with it since when it is out of reach. Longer than it
/// takes the announcer to go round all names: it removes the routes of a node that stays away.
const IDLE: Duration = Duration::from_secs(180);

/// A node that is not connected has this long to take a stream, handshake included.
const FIRST_PATIENCE: Duration = Duration::from_millis(400);

/// When there is nowhere else to go, a node has this long.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// A node that answered this lately lives: less than a visitor takes to connect.
const RECENT: Duration = Duration::from_millis(5);

/// A way counts as longer than it was if it takes twice the time and this.
const LONGER: Duration = Duration::from_millis(20);

/// A node.
pub struct Node {
    address: SocketAddr,
    status: watch::Sender<Status>,
    seen: Mutex<Seen>,
    wanted: Notify,
}

/// How a node's connection is.
#[derive(Clone, Debug)]
pub(super) enum Status {
    /// It is dialed for the first time.
    Dialing {
        since: Instant,
    },
    Up(Connection),
    /// It is dialed now and then.
    Down {
        since: Instant,
    },
}

#[derive(Debug)]
struct Seen {
    /// When somebody last asked for it.
    used: Instant,
    /// When it last answered.
    answered: Option<Instant>,
    /// What had come from it when it was doubted.
    doubted: Option<Pulse>,
    /// The last measured way there and back, while it cannot be reached.
    rtt: Option<Duration>,
    /// The way has become longer than it once was on the connection.
    longer: Option<Duration>,
    /// It said that it goes away.
    leaving: bool,
}

/// Why a node took no stream. Nothing of the visitor was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It cannot be reached, or its connection broke.
    #[error("the node cannot be reached")]
    Unreachable,
    /// It did not say in time that it took the stream.
    #[error("the node did not take the stream in time")]
    Slow,
    /// It turned the stream away.
    #[error("the node refused the stream")]
    Refused(ErrorCode),
}

/// A stream that a node took: it has a link for it. The client's status byte is still to come.
#[derive(Debug)]
pub struct Opened {
    /// The node's connection.
    pub connection: Connection,
    /// Towards the target.
    pub send: SendStream,
    /// From the target.
    pub recv: RecvStream,
}

impl Node {
    pub(super) fn new(address: SocketAddr) -> Self {
        let now = Instant::now();
        Self {
            address,
            status: watch::Sender::new(Status::Dialing { since: now }),
            seen: Mutex::new(Seen {
                used: now,
                answered: None,
                doubted: None,
                rtt: None,
                longer: None,
                leaving: false,
            }),
            wanted: Notify::new(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a stream, sends `header`, and waits for the node to take it. `last` says that there is nowhere else to go if
    /// it takes long.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, header: &[u8], last: bool) -> Result<Opened, OpenError> {
        let patience = self.patience();
        let before = self.pulse();
        let mut opening = std::pin::pin!(self.ask(header));
        if let Ok(outcome) = timeout(patience, &mut opening).await {
            return outcome;
        }
        self.doubt_since(before);
        if !last {
            return Err(OpenError::Slow);
        }
        timeout(LAST_PATIENCE, opening).await.unwrap_or(Err(OpenError::Slow))
    }

    async fn ask(&self, header: &[u8]) -> Result<Opened, OpenError> {
        let connection = self.connection().await.ok_or(OpenError::Unreachable)?;
        let lost = |_| OpenError::Unreachable;
        let (send, mut recv) = connection.open_bi().await.map_err(lost)?;
        let mut opening = Opening(Some(send));
        let mut byte = [0];
        opening.write(header).await?;
        match recv.read(&mut byte).await {
            Ok(Some(_)) if byte == [PASSED_ON] => {}
            Ok(Some(_)) => {
                return Err(OpenError::Refused(ErrorCode::from_number(byte[0]).unwrap_or(ErrorCode::Malformed)));
            }
            Ok(None) => return Err(OpenError::Refused(ErrorCode::Malformed)),
            Err(_) => return Err(OpenError::Unreachable),
        }
        self.answered();
        let send = opening.0.take().ok_or(OpenError::Unreachable)?;
        Ok(Opened { connection, send, recv })
    }

    /// The connection, once it is there; none if the node is out of reach.
    async fn connection(&self) -> Option<Connection> {
        let mut status = self.status.subscribe();
        loop {
            match &*status.borrow_and_update() {
                Status::Up(connection) => return Some(connection.clone()),
                Status::Down { .. } => return None,
                Status::Dialing { .. } => {}
            }
            status.changed().await.ok()?;
        }
    }

    /// How long it may take until a living node says that it took a stream.
    pub fn patience(&self) -> Duration {
        match &*self.status.borrow() {
            Status::Up(connection) => pulse::patience(connection),
            Status::Dialing { .. } | Status::Down { .. } => FIRST_PATIENCE,
        }
    }

    /// How much has come from it so far; none if it is not connected.
    pub fn pulse(&self) -> Option<Pulse> {
        match &*self.status.borrow() {
            Status::Up(connection) => Some(Pulse::of(connection)),
            Status::Dialing { .. } | Status::Down { .. } => None,
        }
    }

    /// If nothing came since `pulse`, lets visitors go elsewhere until something comes; tells whether it was so.
    pub fn doubt_since(&self, pulse: Option<Pulse>) -> bool {
        let is_silent = pulse.is_some() && pulse == self.pulse();
        if is_silent {
            self.lock().doubted = pulse;
        }
        is_silent
    }

    /// Whether it said that it goes away: streams in progress may still end.
    pub fn is_leaving(&self) -> bool {
        self.lock().leaving
    }

    /// Whether visitors should go elsewhere: it goes away, or there is reason to think that it is dead, and it has not shown
    /// life since.
    pub fn is_suspect(&self) -> bool {
        if self.is_leaving() {
            return true;
        }
        match &*self.status.borrow() {
            Status::Down { .. } => true,
            Status::Dialing { since } => since.elapsed() > FIRST_PATIENCE,
            Status::Up(connection) => {
                let mut seen = self.lock();
                let is_silent = seen.doubted.is_some_and(|doubted| doubted == Pulse::of(connection));
                if !is_silent {
                    seen.doubted = None;
                }
                is_silent
            }
        }
    }

    /// It answered something that it was asked.
    pub fn answered(&self) {
        self.lock().answered = Some(Instant::now());
    }

    /// Whether it lives: it answered a moment ago, or does so now. For what must not be sent to a dead node.
    pub async fn proves_life(&self) -> bool {
        if self.lock().answered.is_some_and(|answered| answered.elapsed() < RECENT) {
            return true;
        }
        self.shows_life().await
    }

    /// Whether it answers now. Also measures how far away it is: a keep-alive of QUIC does not, since its acknowledgement may
    /// be late on purpose.
    pub(super) async fn shows_life(&self) -> bool {
        let before = self.pulse();
        let asked = async {
            let (mut send, mut recv) = self.connection().await?.open_bi().await.ok()?;
            // Without a header it cannot be passed on, and is answered at once.
            send.finish().ok()?;
            recv.read(&mut [0]).await.ok()
        };
        let lives = timeout(self.patience(), asked).await.ok().flatten().is_some();
        if lives {
            self.answered();
        } else {
            self.doubt_since(before);
        }
        lives
    }

    /// Whether its links for what `header` names are alive, as far as it can tell. For a request that waits long: the node
    /// shows life, and it is the target that is slow, or the link behind the node that is dead.
    pub async fn vouches(&self, header: &[u8]) -> bool {
        match timeout(LAST_PATIENCE, self.ask(header)).await {
            Ok(Ok(_)) => true,
            Ok(Err(OpenError::Refused(code))) => code != ErrorCode::NoLiveLink,
            Ok(Err(OpenError::Unreachable | OpenError::Slow)) | Err(_) => false,
        }
    }

    /// The way there and back. The shortest ever measured on the connection: what is above it are waits at one of the two
    /// machines, and on a connection that is seldom used a few of them would count for minutes.
    fn distance(&self, connection: &Connection) -> Duration {
        self.lock().longer.unwrap_or_else(|| connection.min_rtt())
    }

    /// The way is at least so long as of late.
    pub(super) fn measured(&self, connection: &Connection, lately: Duration) {
        let is_longer = lately > connection.min_rtt() * 2 + LONGER;
        self.lock().longer = is_longer.then_some(lately);
    }

    pub(super) fn sight(&self) -> Sight {
        let (rtt, unreachable) = match &*self.status.borrow() {
            Status::Up(connection) => (Some(self.distance(connection)), None),
            Status::Dialing { .. } => (None, None),
            Status::Down { since } => (self.lock().rtt, Some(since.elapsed())),
        };
        Sight { rtt, is_suspect: self.is_suspect(), unreachable }
    }

    /// Somebody is interested in it.
    pub(super) fn touch(&self) {
        self.lock().used = Instant::now();
        if matches!(&*self.status.borrow(), Status::Down { .. }) {
            self.wanted.notify_one();
        }
    }

    /// Waits until somebody wants to go there although it cannot be reached.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().used.elapsed() >= IDLE
    }

    pub(super) fn leaves(&self) {
        self.lock().leaving = true;
    }

    pub(super) fn set(&self, status: Status) {
        {
            let mut seen = self.lock();
            (seen.doubted, seen.leaving, seen.longer) = (None, false, None);
        }
        self.status.send_replace(status);
    }

    /// It cannot be reached; since when, is kept from the first time on.
    pub(super) fn set_down(&self) {
        let now = Instant::now();
        let status = match &*self.status.borrow() {
            Status::Up(connection) => {
                let distance = self.distance(connection);
                self.lock().rtt = Some(distance);
                Status::Down { since: now }
            }
            Status::Dialing { since } | Status::Down { since } => Status::Down { since: *since },
        };
        self.set(status);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that was not taken yet. One that is given up must not look like a visitor's end.
struct Opening(Option<SendStream>);

impl Opening {
    async fn write(&mut self, header: &[u8]) -> Result<(), OpenError> {
        match &mut self.0 {
            // A node that refuses at once may stop our direction: its first byte says why.
            Some(send) => match send.write_all(header).await {
                Ok(()) | Err(quinn::WriteError::Stopped(_)) => Ok(()),
                Err(_) => Err(OpenError::Unreachable),
            },
            None => Ok(()),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(send) = &mut self.0 {
            // Refused if the other side was first to end it.
            let _ = send.reset(0_u32.into());
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}
