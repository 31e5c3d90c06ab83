//! Connections, whose bytes come late or slowly, stand still, or break.

use super::{Conditions, line::Line, queue::queue};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

/// A running relay. It ends when dropped.
pub struct TcpRelay {
    /// Where it takes connections.
    pub address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy)]
struct Wire {
    conditions: Conditions,
    is_frozen: bool,
    /// Connections of an earlier number are over.
    generation: u64,
}

/// Bytes that are read and delayed as one piece.
const PIECE_BYTES: usize = 16 << 10;

/// Connections at a time; more are refused.
const CONNECTIONS: usize = 4096;

impl TcpRelay {
    /// Relays connections to `listen` to `upstream`. Loss and reordering have no meaning for bytes of a connection.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        seed: u64,
        conditions: Conditions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let wire = Arc::new(watch::Sender::new(Wire { conditions, is_frozen: false, generation: 0 }));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream, seed, wire.clone()));
        Ok(Self { address, wire, _tasks: tasks })
    }

    /// Treats what comes from now on in another way.
    pub fn set(&self, conditions: Conditions) {
        self.wire.send_modify(|wire| wire.conditions = conditions);
    }

    /// Carries nothing more, without a word to either side, until [`Self::mend`].
    pub fn freeze(&self) {
        self.wire.send_modify(|wire| wire.is_frozen = true);
    }

    /// Carries again what [`Self::freeze`] stopped.
    pub fn mend(&self) {
        self.wire.send_modify(|wire| wire.is_frozen = false);
    }

    /// Breaks all connections; new ones are carried.
    pub fn cut(&self) {
        self.wire.send_modify(|wire| wire.generation += 1);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, seed: u64, wire: Arc<watch::Sender<Wire>>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS {
            connections.spawn(carry(near, upstream, seed, wire.subscribe()));
        }
    }
}

async fn carry(near: TcpStream, upstream: SocketAddr, seed: u64, mut wire: watch::Receiver<Wire>) {
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    let started = wire.borrow().generation;
    // Latency is ours to add, nobody else's.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = one_way(near_read, far_write, seed, wire.clone());
    let down = one_way(far_read, near_write, !seed, wire.clone());
    tokio::select! {
        () = cut(&mut wire, started) => {}
        _ = async { tokio::join!(up, down) } => {}
    }
}

/// Returns when connections of that generation are over.
async fn cut(wire: &mut watch::Receiver<Wire>, generation: u64) {
    while wire.borrow_and_update().generation == generation && wire.changed().await.is_ok() {}
}

/// Returns when the wire carries something.
async fn thawed(wire: &mut watch::Receiver<Wire>) {
    while wire.borrow_and_update().is_frozen && wire.changed().await.is_ok() {}
}

async fn one_way(
    mut read: tokio::net::tcp::OwnedReadHalf,
    mut write: tokio::net::tcp::OwnedWriteHalf,
    seed: u64,
    wire: watch::Receiver<Wire>,
) {
    let (put, mut out) = queue::<Vec<u8>>();
    let mut line = Line::new(seed, Conditions::default());
    let mut thaw = wire.clone();
    let reading = async move {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            line.set(wire.borrow().conditions);
            let due = line.stream(Instant::now(), length);
            if put.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some(piece) = out.next().await {
            thawed(&mut thaw).await;
            // The other side is gone: the reader will see it, too.
            let _ = write.write_all(&piece).await;
        }
        let _ = write.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn scene(conditions: Conditions) -> (TcpRelay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let relay =
            TcpRelay::start((Ipv4Addr::LOCALHOST, 0).into(), address, 1, conditions).await.expect("a free port");
        let near = TcpStream::connect(relay.address).await.expect("it listens");
        let (far, _) = timeout(LIMIT, listener.accept()).await.expect("in time").expect("a connection");
        (relay, near, far)
    }

    #[tokio::test]
    async fn bytes_come_late_and_in_order_and_so_does_the_end() {
        let delay = Duration::from_millis(30);
        let conditions = Conditions { delay, jitter: delay, bytes_per_s: Some(4 << 20), ..Conditions::default() };
        let (_relay, mut near, mut far) = scene(conditions).await;
        let sent: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        let start = Instant::now();
        let mut seen = Vec::new();
        let (wrote, read) = timeout(LIMIT, async {
            tokio::join!(async { near.write_all(&sent).await.and(near.shutdown().await) }, far.read_to_end(&mut seen))
        })
        .await
        .expect("in time");
        assert!(wrote.is_ok() && read.is_ok());
        assert!(seen == sent, "{} of {} bytes", seen.len(), sent.len());
        assert!(start.elapsed() >= delay);
    }

    #[tokio::test]
    async fn a_frozen_wire_carries_what_it_held_once_it_is_mended_and_a_cut_one_ends() {
        let (relay, mut near, mut far) = scene(Conditions::default()).await;
        relay.freeze();
        near.write_all(b"late").await.expect("the relay reads");
        let mut buffer = [0; 4];
        assert!(timeout(Duration::from_millis(50), far.read_exact(&mut buffer)).await.is_err());
        relay.mend();
        timeout(LIMIT, far.read_exact(&mut buffer)).await.expect("in time").expect("four bytes");
        assert_eq!(&buffer, b"late");
        relay.cut();
        assert!(matches!(timeout(LIMIT, near.read(&mut buffer)).await.expect("in time"), Ok(0) | Err(_)));
    }
}
