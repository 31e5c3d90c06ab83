//! Starts the core on what the data directory holds.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use specter_dht::{
    ClusterId, Life, NodeId, Packet, Peer, Random, Record, State, Terms,
    codec::{self, CodecError},
    kv::{Durable, Rules},
    node::Settings,
};
use specter_storage::{
    disk::{Disk, Folder, FolderError},
    identity::Identity,
    log::Health,
    recover::{self, Recovered},
    settings::{self, Policy},
    snapshot::{Snapshot as _, SnapshotError},
    sqlite::Sqlite,
    writer::Writer,
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Handle,
    changes::Tracker,
    checkpoint::{Checkpoints, Place},
    core::{Core, RECORD},
    mailbox::Mailbox,
    neighbours::{Lookout, Neighbours},
    rows,
};
use crate::{
    config::SyncPolicy,
    shutdown::Shutdown,
    transport::peers::{Arrival, Peers},
};

/// The snapshot's file in the data directory.
pub(super) const SNAPSHOT: &str = "snap.db";

/// The running store of this node.
#[derive(Debug)]
pub struct Node {
    id: specter_wire::id::NodeId,
    mailbox: Arc<Mailbox>,
    neighbours: Neighbours,
    thread: JoinHandle<()>,
}

/// With what the store starts.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// Where its files are.
    pub data_dir: &'a Path,
    /// The cluster, as the node's certificate says.
    pub cluster: [u8; 16],
    /// Where other nodes reach this one.
    pub address: SocketAddr,
    /// Where other nodes may be found, as far as that is known yet.
    pub seeds: Vec<SocketAddr>,
    /// Whether nobody else is to be found: a new directory makes a new cluster.
    pub founds: bool,
    /// How patient it is.
    pub tuning: Tuning,
}

/// How patient the store is; the defaults are for a cluster that runs for years.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// What a new cluster agrees on.
    pub(super) terms: Terms,
    pub(super) node: Settings,
    pub(super) log: settings::Settings,
}

/// Why the store cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The files in it.
    #[error(transparent)]
    Recover(#[from] recover::OpenError),
    /// A record that was written by another version, or not by us.
    #[error(
        "record {lsn} of the log cannot be understood; start the version of specter-server that wrote it, or a later one"
    )]
    Record {
        /// Its number.
        lsn: u64,
    },
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A row that was written by another version, or not by us.
    #[error(
        "a row of the snapshot {} cannot be understood; start the version of specter-server that wrote it, or a later one",
        path.display()
    )]
    Row {
        /// The snapshot.
        path: PathBuf,
        /// What is wrong with it.
        source: CodecError,
    },
    /// Writes that the node acknowledged may be missing, and others counted on it.
    #[error(
        "the data directory {} is a copy, or its node ended without being stopped and keeps records every second only \
         (--sync everysec), so this node must not vote as the one that it was; move the directory away and start the node \
         again: it then starts anew and is filled by its peers (--join names one)",
        path.display()
    )]
    Forgotten {
        /// The directory.
        path: PathBuf,
    },
    /// No thread.
    #[error("the store's thread cannot be started; the system has too many threads or too little memory")]
    Thread(#[source] io::Error),
    /// No random bytes.
    #[error("the system gives no random bytes; wait until it has collected some, then start the node again")]
    Random,
}

impl Tuning {
    /// The defaults, and when a record counts as kept.
    #[must_use]
    pub fn with(sync: SyncPolicy) -> Self {
        let policy = match sync {
            SyncPolicy::Always => Policy::Always,
            SyncPolicy::EverySecond => Policy::EverySecond,
        };
        Self { log: settings::Settings { policy, ..settings::Settings::default() }, ..Self::default() }
    }
}

impl Node {
    /// Opens the store in a data directory and starts its threads.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is running then.
    pub fn open(
        opening: Opening<'_>,
        peers: Arc<Peers>,
        inbox: mpsc::Receiver<Arrival>,
        tasks: &Shutdown,
    ) -> Result<Self, OpenError> {
        Self::start(Folder::open(opening.data_dir)?, opening, peers, inbox, tasks)
    }

    /// The same on a disk that a test may have put in place of the directory; the snapshot is in the directory.
    pub(super) fn start<D: Disk<File: Send> + Send + 'static>(
        disk: D,
        opening: Opening<'_>,
        peers: Arc<Peers>,
        inbox: mpsc::Receiver<Arrival>,
        tasks: &Shutdown,
    ) -> Result<Self, OpenError> {
        let Opening { data_dir, cluster, address, seeds, founds, tuning } = opening;
        let identity = match Identity::read(&disk) {
            Ok(Some(Ok(known))) => Identity { cluster, ..known },
            // Whatever is wrong with it, opening says so.
            Ok(Some(Err(_)) | None) | Err(_) => Identity { node: draw()?, cluster },
        };
        let me = NodeId(u128::from_be_bytes(identity.node));
        let place = Place { path: data_dir.join(SNAPSHOT), identity };
        let mut loaded = Loaded::read(&place)?;
        let opening = recover::Opening { identity, settings: tuning.log, random: draw()? };
        let snapshot_lsn = loaded.lsn;
        let (log, recovered) = recover::open(disk, &opening, snapshot_lsn, |record| loaded.replay(&record))?;
        loaded.check()?;
        let Loaded { state, tracker, lsn: _, strange: _ } = loaded;
        tell(&recovered);
        let is_alone = founds && is_alone(&state, me);
        if recovered.may_have_forgotten && !is_alone {
            return Err(OpenError::Forgotten { path: data_dir.to_owned() });
        }
        let create = founds.then_some(tuning.terms);
        let me_peer = Peer { id: me, incarnation: u64::from(recovered.boot.number), address, seats: 1, leaving: false };
        let life = Life {
            me: me_peer,
            cluster: ClusterId(u128::from_be_bytes(cluster)),
            create,
            seeds,
            state,
            position: recovered.last_lsn,
        };
        let random = Random::seeded(u64::from_be_bytes(draw()?));
        let began = specter_dht::Instant::from_micros(0);
        let node = specter_dht::Node::new(life, tuning.node, Rules::default(), random, began);
        let mailbox = Arc::new(Mailbox::default());
        let checkpoints =
            Checkpoints::start(place, tracker, snapshot_lsn, mailbox.clone()).map_err(OpenError::Thread)?;
        let told = mailbox.clone();
        let writer = Writer::start(log, move |health| told.health(health)).map_err(OpenError::Thread)?;
        if recovered.may_have_forgotten {
            warn!("the data directory may lack its last writes; nobody else has them, so the node goes on without");
            writer.begun_anew();
        }
        let (deliver, stopping) = (deliver(inbox, mailbox.clone()), tasks.token());
        tasks.spawn(async move { stopping.run_until_cancelled(deliver).await.unwrap_or(()) });
        let (lookout, neighbours) = Lookout::new();
        let core = Core {
            me,
            node,
            mailbox: mailbox.clone(),
            peers,
            runtime: runtime::Handle::current(),
            writer,
            checkpoints,
            lookout,
            started: Instant::now(),
            calls: std::collections::HashMap::new(),
            counted: 0,
            records: Vec::new(),
            position: recovered.last_lsn,
            in_flight: None,
            disk: Health::Open,
            has_no_reserve: false,
            wake: began,
            left: None,
            stopping: None,
        };
        let thread = thread::Builder::new().name("core".to_owned()).spawn(move || core.run());
        let id = specter_wire::id::NodeId(me.0.to_be_bytes());
        Ok(Self { id, mailbox, neighbours, thread: thread.map_err(OpenError::Thread)? })
    }

    /// Which node this is: drawn when its data directory was made.
    pub fn id(&self) -> specter_wire::id::NodeId {
        self.id
    }

    /// What others ask the store through.
    pub fn handle(&self) -> Handle {
        Handle::new(self.mailbox.clone())
    }

    /// The other nodes that live, as far as this one knows; at most [`super::limits::NEIGHBOURS`].
    pub fn neighbours(&self) -> Neighbours {
        self.neighbours.clone()
    }

    /// Lets the other nodes take over what this one keeps, for at most so long. Tells whether they have all of it; a node
    /// alone has nobody to give it to.
    pub async fn leave(&self, patience: Duration) -> bool {
        let (left, done) = oneshot::channel();
        self.mailbox.leave(left);
        timeout(patience, done).await.is_ok_and(|left| left.is_ok())
    }

    /// Ends the store: calls that wait are still done if they can be, later ones get [`super::Error::Draining`]. Returns
    /// when the files are closed and the data directory is free.
    pub async fn stop(self) {
        self.mailbox.stop();
        // A panic of the thread was reported when it happened.
        tokio::task::spawn_blocking(|| self.thread.join().ok()).await.ok();
    }
}

/// What a data directory tells, as far as it was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) state: State,
    /// What the log has that the snapshot does not.
    pub(super) tracker: Tracker,
    /// What the snapshot holds.
    pub(super) lsn: u64,
    /// The first record that cannot be understood.
    pub(super) strange: Option<u64>,
}

impl Loaded {
    /// Reads the snapshot, if there is one.
    pub(super) fn read(place: &Place) -> Result<Self, OpenError> {
        let me = NodeId(u128::from_be_bytes(place.identity.node));
        let rules = Rules::default();
        let mut state = State::new(me, rules);
        let mut lsn = 0;
        // It is made by the first checkpoint, so that there is none before the directory has an owner.
        if place.path.exists() {
            let mut wrong = None;
            lsn = Sqlite::open(&place.path, &place.identity)?.load(&mut |row| {
                if let Err(error) = rows::take(&mut state, me, rules, row) {
                    wrong.get_or_insert(error);
                }
            })?;
            if let Some(source) = wrong {
                return Err(OpenError::Row { path: place.path.clone(), source });
            }
        }
        Ok(Self { tracker: Tracker::of(&state), state, lsn, strange: None })
    }

    /// # Errors
    /// A record was not understood: the state is void.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        self.strange.map_or(Ok(()), |lsn| Err(OpenError::Record { lsn }))
    }

    /// Takes in a record of the log behind the snapshot.
    pub(super) fn replay(&mut self, record: &specter_storage::record::Record<'_>) {
        let decoded = (record.entry.kind == RECORD).then(|| codec::decode::<Record>(record.entry.payload).ok());
        match decoded.flatten() {
            Some(decoded) => {
                self.tracker.note(&decoded);
                self.state.apply(&decoded);
            }
            None => {
                self.strange.get_or_insert(record.lsn);
            }
        }
    }
}

impl OpenError {
    /// Whether something of the directory is gone, and not only of another version, another node's or out of reach.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Recover(error) => error.is_damage(),
            Self::Snapshot(error) => error.is_damage(),
            Self::Folder(_)
            | Self::Record { .. }
            | Self::Row { .. }
            | Self::Forgotten { .. }
            | Self::Thread(_)
            | Self::Random => false,
        }
    }
}

/// Whether nobody else counts on what this node promised, as far as it knows.
fn is_alone(state: &State, me: NodeId) -> bool {
    let is_mine = |durable: &Durable| durable.config.audience().iter().all(|node| *node == me);
    state.peers.keys().all(|peer| *peer == me) && state.slots.values().all(is_mine)
}

fn tell(recovered: &Recovered) {
    let Recovered { boot, last_lsn, records, torn, was_closed, may_have_forgotten: _ } = recovered;
    info!(start = boot.number, last_lsn, replayed = records, was_closed, "the store is open");
    if let Some(torn) = torn {
        warn!(
            lsn = torn.lsn,
            size_bytes = torn.size_bytes,
            kept = torn.kept,
            "the end of the log that the last crash left half-written was cut off; nobody was told of it"
        );
    }
}

/// Hands what other nodes send to the core.
async fn deliver(mut inbox: mpsc::Receiver<Arrival>, mailbox: Arc<Mailbox>) {
    while let Some(arrival) = inbox.recv().await {
        match arrival {
            Arrival::Packet { from, bytes } => match read(&bytes) {
                Some((node, packet)) => mailbox.packet(node, packet, bytes.len()),
                None => tracing::debug!(%from, "a packet could not be understood"),
            },
            Arrival::Unreachable { address } => mailbox.unreachable(address),
        }
    }
}

/// A packet starts with the identity of who sent it: that of its data directory, which its certificate does not know.
fn read(bytes: &Bytes) -> Option<(NodeId, Packet)> {
    let (id, packet) = bytes.split_first_chunk()?;
    Some((NodeId(u128::from_be_bytes(*id)), codec::decode(packet).ok()?))
}

pub(super) fn draw<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| OpenError::Random)?;
    Ok(bytes)
}
