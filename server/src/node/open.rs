//! Starts the core on what the data directory holds.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use specter_dht::{
    ClusterId, Life, NodeId, Packet, Peer, Random, Record, State, Terms, codec, kv::Rules, node::Settings,
};
use specter_storage::{
    disk::{Folder, FolderError},
    identity::Identity,
    log::Health,
    recover, settings,
    writer::Writer,
};
use tokio::{runtime, sync::mpsc};

use super::{
    Handle,
    core::{Core, RECORD},
    mailbox::Mailbox,
};
use crate::{
    shutdown::Shutdown,
    transport::peers::{Arrival, Peers},
};

/// The running store of this node.
#[derive(Debug)]
pub struct Node {
    mailbox: Arc<Mailbox>,
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
    /// Where other nodes may be found; with none, a new directory makes a new cluster.
    pub seeds: Vec<SocketAddr>,
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
    /// No thread.
    #[error("the store's thread cannot be started; the system has too many threads or too little memory")]
    Thread(#[source] io::Error),
    /// No random bytes.
    #[error("the system gives no random bytes; wait until it has collected some, then start the node again")]
    Random,
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
        let Opening { data_dir, cluster, address, seeds } = opening;
        let folder = Folder::open(data_dir)?;
        let identity = match Identity::read(&folder) {
            Ok(Some(Ok(known))) => Identity { cluster, ..known },
            // Whatever is wrong with it, opening says so.
            Ok(Some(Err(_)) | None) | Err(_) => Identity { node: draw()?, cluster },
        };
        let me = NodeId(u128::from_be_bytes(identity.node));
        let mut state = State::new(me, Rules::default());
        let mut strange = None;
        let opening = recover::Opening { identity, settings: settings::Settings::default(), random: draw()? };
        let (log, recovered) = recover::open(folder, &opening, 0, |record| {
            let decoded = (record.entry.kind == RECORD).then(|| codec::decode::<Record>(record.entry.payload).ok());
            match decoded.flatten() {
                Some(decoded) => state.apply(&decoded),
                None => {
                    strange.get_or_insert(record.lsn);
                }
            }
        })?;
        if let Some(lsn) = strange {
            return Err(OpenError::Record { lsn });
        }
        let create = seeds.is_empty().then(Terms::default);
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
        let node = specter_dht::Node::new(
            life,
            Settings::default(),
            Rules::default(),
            random,
            specter_dht::Instant::from_micros(0),
        );
        let mailbox = Arc::new(Mailbox::default());
        let told = mailbox.clone();
        let writer = Writer::start(log, move |health| told.health(health)).map_err(OpenError::Thread)?;
        tasks.spawn(deliver(inbox, mailbox.clone()));
        let core = Core {
            me,
            node,
            mailbox: mailbox.clone(),
            peers,
            runtime: runtime::Handle::current(),
            writer,
            started: Instant::now(),
            calls: std::collections::HashMap::new(),
            counted: 0,
            records: Vec::new(),
            position: recovered.last_lsn,
            in_flight: None,
            disk: Health::Open,
            wake: specter_dht::Instant::from_micros(0),
            left: None,
            stopping: None,
        };
        let thread = thread::Builder::new().name("core".to_owned()).spawn(move || core.run());
        Ok(Self { mailbox, thread: thread.map_err(OpenError::Thread)? })
    }

    /// What others ask the store through.
    pub fn handle(&self) -> Handle {
        Handle::new(self.mailbox.clone())
    }

    /// Ends the store: calls that wait are still done if they can be, later ones get [`super::Error::Draining`]. Returns
    /// when the files are closed and the data directory is free.
    pub async fn stop(self) {
        self.mailbox.stop();
        // A panic of the thread was reported when it happened.
        tokio::task::spawn_blocking(|| self.thread.join().ok()).await.ok();
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

fn draw<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| OpenError::Random)?;
    Ok(bytes)
}
