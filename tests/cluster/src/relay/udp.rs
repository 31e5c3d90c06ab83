//! Datagrams, each sender through a socket of its own towards the other side, as a NAT has it.

use super::{Conditions, Direction, line::Line, queue::queue};
use socket2::SockRef;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc::Sender, watch},
    task::JoinSet,
    time::Instant,
};

/// A running relay. It ends when dropped.
pub struct UdpRelay {
    /// Where it takes datagrams.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

/// Senders at a time; datagrams of more are lost.
const SENDERS: usize = 4096;

/// Largest datagram.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Room in the kernel for bursts; it may give less.
const KERNEL_BYTES: usize = 4 << 20;

struct State {
    upstream: SocketAddr,
    up: Line,
    down: Line,
    is_up_cut: bool,
    is_down_cut: bool,
    /// The way out of each sender.
    senders: HashMap<SocketAddr, watch::Sender<Arc<UdpSocket>>>,
}

type Packet = (Vec<u8>, SocketAddr);

impl UdpRelay {
    /// Relays what comes to `listen` to `upstream` and back.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(
        listen: SocketAddr,
        upstream: SocketAddr,
        seed: u64,
        conditions: Conditions,
    ) -> io::Result<Self> {
        let front = Arc::new(bind(listen).await?);
        let address = front.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            upstream,
            up: Line::new(seed, conditions),
            down: Line::new(!seed, conditions),
            is_up_cut: false,
            is_down_cut: false,
            senders: HashMap::new(),
        }));
        let mut tasks = JoinSet::new();
        let (up, mut out) = queue::<Packet>();
        let sending = state.clone();
        tasks.spawn(async move {
            while let Some((data, sender)) = out.next().await {
                let socket = lock(&sending).senders.get(&sender).map(|way| way.borrow().clone());
                if let Some(socket) = socket {
                    // Nobody listens there: lost, as on any wire.
                    let _ = socket.send(&data).await;
                }
            }
        });
        let (down, mut out) = queue::<Packet>();
        let back = front.clone();
        tasks.spawn(async move {
            while let Some((data, sender)) = out.next().await {
                // As above.
                let _ = back.send_to(&data, sender).await;
            }
        });
        tasks.spawn(forward(front, state.clone(), up, down));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// Treats what comes from now on in another way.
    pub fn set(&self, conditions: Conditions) {
        let mut state = lock(&self.state);
        state.up.set(conditions);
        state.down.set(conditions);
    }

    /// Loses everything in a direction, until [`Self::mend`].
    pub fn cut(&self, direction: Direction) {
        let mut state = lock(&self.state);
        state.is_up_cut |= direction.has_up();
        state.is_down_cut |= direction.has_down();
    }

    /// Carries again what [`Self::cut`] stopped.
    pub fn mend(&self) {
        let mut state = lock(&self.state);
        (state.is_up_cut, state.is_down_cut) = (false, false);
    }

    /// From now on every sender comes from another port, and from `ip`, as after a change of networks. What is on its way
    /// to the old addresses is lost.
    ///
    /// # Errors
    /// If no port of that address can be bound.
    pub async fn roam(&self, ip: IpAddr) -> io::Result<()> {
        let (upstream, senders) = {
            let state = lock(&self.state);
            (state.upstream, state.senders.keys().copied().collect::<Vec<_>>())
        };
        for sender in senders {
            let socket = Arc::new(way_out(ip, upstream).await?);
            if let Some(way) = lock(&self.state).senders.get(&sender) {
                way.send_replace(socket);
            }
        }
        Ok(())
    }

    /// How many senders there have been.
    pub fn senders(&self) -> usize {
        lock(&self.state).senders.len()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    let raw = SockRef::from(&socket);
    // The kernel's own size does for all but the fastest.
    let _ = raw.set_recv_buffer_size(KERNEL_BYTES);
    let _ = raw.set_send_buffer_size(KERNEL_BYTES);
    Ok(socket)
}

async fn way_out(ip: IpAddr, upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bind(SocketAddr::new(ip, 0)).await?;
    socket.connect(upstream).await?;
    Ok(socket)
}

/// Takes what senders send, and gives each new one a way out and a reader of what comes back.
async fn forward(
    front: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    up: Sender<(Instant, Packet)>,
    down: Sender<(Instant, Packet)>,
) {
    let mut readers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An error is that of a datagram sent before, to somebody who is gone.
        let Ok((length, sender)) = front.recv_from(&mut buffer).await else { continue };
        let (is_known, upstream) = {
            let state = lock(&state);
            (state.senders.contains_key(&sender), state.upstream)
        };
        if !is_known {
            if readers.len() >= SENDERS {
                continue;
            }
            let any = if upstream.ip().is_loopback() { upstream.ip() } else { unspecified(upstream) };
            let Ok(socket) = way_out(any, upstream).await else { continue };
            let (way, ways) = watch::channel(Arc::new(socket));
            lock(&state).senders.insert(sender, way);
            readers.spawn(backward(sender, ways, state.clone(), down.clone()));
        }
        let due = {
            let mut state = lock(&state);
            let due = state.up.datagram(Instant::now(), length);
            if state.is_up_cut { None } else { due }
        };
        if let Some(due) = due {
            // A full queue loses, as queues on the way do.
            let _ = up.try_send((due, (buffer[..length].to_vec(), sender)));
        }
    }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() }
}

/// Reads what comes back for one sender, on the way out that it has at the time.
async fn backward(
    sender: SocketAddr,
    mut ways: watch::Receiver<Arc<UdpSocket>>,
    state: Arc<Mutex<State>>,
    down: Sender<(Instant, Packet)>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let socket = ways.borrow_and_update().clone();
        let length = tokio::select! {
            changed = ways.changed() => if changed.is_ok() { continue } else { return },
            // An error tells that nobody listens on the other side now.
            length = socket.recv(&mut buffer) => match length { Ok(length) => length, Err(_) => continue },
        };
        let due = {
            let mut state = lock(&state);
            let due = state.down.datagram(Instant::now(), length);
            if state.is_down_cut { None } else { due }
        };
        if let Some(due) = due {
            let _ = down.try_send((due, (buffer[..length].to_vec(), sender)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(20);
    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn scene(conditions: Conditions) -> (UdpRelay, UdpSocket, UdpSocket) {
        let far = UdpSocket::bind(LOOPBACK).await.expect("a free port");
        let address = far.local_addr().expect("bound");
        let relay = UdpRelay::start(LOOPBACK, address, 1, conditions).await.expect("a free port");
        let near = UdpSocket::bind(LOOPBACK).await.expect("a free port");
        near.connect(relay.address).await.expect("loopback");
        (relay, near, far)
    }

    async fn next(socket: &UdpSocket) -> (u8, SocketAddr) {
        let mut buffer = [0; 16];
        let (length, from) = timeout(LIMIT, socket.recv_from(&mut buffer)).await.expect("in time").expect("a datagram");
        assert_eq!(length, 1);
        (buffer[0], from)
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back_late() {
        let delay = Duration::from_millis(30);
        let (_relay, near, far) = scene(Conditions { delay, ..Conditions::default() }).await;
        let start = Instant::now();
        near.send(&[1]).await.expect("sent");
        let (byte, from) = next(&far).await;
        assert_eq!(byte, 1);
        far.send_to(&[2], from).await.expect("sent");
        assert_eq!(next(&near).await.0, 2);
        assert!(start.elapsed() >= delay * 2);
    }

    #[tokio::test]
    async fn after_a_change_of_address_the_far_side_sees_a_new_one_and_reaches_it() {
        let (relay, near, far) = scene(Conditions::default()).await;
        near.send(&[1]).await.expect("sent");
        let (_, before) = next(&far).await;
        let ip = "127.0.0.9".parse().expect("an address");
        relay.roam(ip).await.expect("loopback");
        near.send(&[2]).await.expect("sent");
        let (byte, after) = next(&far).await;
        assert_eq!((byte, after.ip()), (2, ip));
        assert_ne!(before, after);
        far.send_to(&[3], after).await.expect("sent");
        assert_eq!(next(&near).await.0, 3);
        assert_eq!(relay.senders(), 1);
    }

    #[tokio::test]
    async fn a_black_hole_in_one_direction_leaves_the_other() {
        let (relay, near, far) = scene(Conditions::default()).await;
        near.send(&[1]).await.expect("sent");
        let (_, from) = next(&far).await;
        relay.cut(Direction::Up);
        near.send(&[2]).await.expect("sent");
        far.send_to(&[3], from).await.expect("sent");
        assert_eq!(next(&near).await.0, 3, "down still works");
        relay.mend();
        relay.cut(Direction::Down);
        far.send_to(&[4], from).await.expect("sent");
        near.send(&[5]).await.expect("sent");
        assert_eq!(next(&far).await.0, 5, "what was sent upwards before is lost");
        relay.mend();
        far.send_to(&[6], from).await.expect("sent");
        assert_eq!(next(&near).await.0, 6, "what was sent downwards before is lost");
    }
}
