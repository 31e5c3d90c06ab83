//! QUIC endpoints of a node: sockets, settings and the TLS they offer.

use super::defer::DeferRuntime;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refused the socket.
    #[error("cannot listen on {protocol} address {address}")]
    Socket {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// As asked.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The TLS settings do not serve QUIC.
    #[error("the TLS settings do not serve QUIC")]
    Tls(#[from] NoInitialCipherSuite),
}

/// Application close code: all is said.
pub const CLOSE_NORMAL: u32 = 0;

/// Application close code: the other side broke the protocol.
pub const CLOSE_VIOLATION: u32 = 2;

/// Application close code: the node shuts down.
pub const CLOSE_DRAINING: u32 = 3;

/// Asked for each UDP socket: at 1 Gbit/s about 30 ms of packets, so that a pause of this process loses none.
const UDP_BUFFER_BYTES: usize = 4 << 20;

/// Connections that wait in the kernel until they are accepted.
const TCP_BACKLOG: i32 = 1024;

/// A link is dead when nothing was heard for this long; clients keep it alive three times as often.
const LINK_IDLE: Duration = Duration::from_secs(30);

/// Streams a client may open at a time: its control stream. Nobody would read what comes on another.
const STREAMS_FROM_CLIENT: u32 = 1;

/// Bytes that a peer may have on the way to us before we know it: some control frames.
const STRANGER_RECEIVE_WINDOW_BYTES: u32 = 128 << 10;

/// Bytes that a known client may have on the way to us on all streams of a link. Much more than a hundred visitors who
/// read nothing hold of it (1.25 MB each, until they are cut off), because whoever uses it up starves all tunnels of the
/// client, and its answers to us.
pub(super) const LINK_RECEIVE_WINDOW_BYTES: u32 = 256 << 20;

/// A TCP port that is ours. Who dials it is refused until [`Port::listen`].
#[derive(Debug)]
pub struct Port {
    socket: Socket,
    address: SocketAddr,
}

impl Port {
    /// Takes a port. An IPv6 address serves IPv6 only, so both families can be given.
    ///
    /// # Errors
    /// [`BindError::Socket`].
    pub fn take(address: SocketAddr) -> Result<Self, BindError> {
        let open = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // A restarted node takes its port back while old connections linger.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            let bound = socket.local_addr()?.as_socket();
            Ok(Self { socket, address: bound.unwrap_or(address) })
        };
        open().map_err(|source| BindError::Socket { protocol: "TCP", address, source })
    }

    /// Which it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A listener there, ready for tokio.
    ///
    /// # Errors
    /// [`BindError::Socket`].
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self { socket, address } = self;
        let listening = socket.listen(TCP_BACKLOG).map(|()| socket.into());
        listening.map_err(|source| BindError::Socket { protocol: "TCP", address, source })
    }
}

/// Closes a listener, and returns the connections that were made by then.
///
/// None is lost in between where the kernel can be told to make no new ones: who dials meanwhile hears nothing, tries
/// again, and finds nobody.
pub fn close_listener(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(&listener).attach_filter(&no_new_connections()) {
        tracing::debug!(%error, "a visitor who comes while a listener is closed may be reset");
    }
    let mut made = Vec::new();
    while made.len() <= TCP_BACKLOG.unsigned_abs() as usize
        && let Ok(accepted) = listener.accept()
    {
        made.push(accepted);
    }
    made
}

/// A program for the kernel's packet filter (classic BPF, see the kernel's `networking/filter.rst`) over what comes to a
/// listening socket, from the TCP header on: the flags are byte 13, and a segment with SYN and without ACK is dropped.
#[cfg(target_os = "linux")]
fn no_new_connections() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Opens a UDP socket with large buffers. Warns when the kernel grants less than asked.
///
/// # Errors
/// [`BindError::Socket`].
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    let socket: UdpSocket = open().map_err(|source| BindError::Socket { protocol: "UDP", address, source })?;
    let reference = SockRef::from(&socket);
    let granted = reference
        .set_recv_buffer_size(UDP_BUFFER_BYTES)
        .and_then(|()| reference.set_send_buffer_size(UDP_BUFFER_BYTES))
        .and_then(|()| reference.recv_buffer_size());
    match granted {
        Ok(bytes) if bytes < UDP_BUFFER_BYTES => tracing::warn!(
            granted_bytes = bytes,
            asked_bytes = UDP_BUFFER_BYTES,
            "the kernel grants a small UDP buffer: bursts may be lost until net.core.rmem_max is raised"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the UDP buffers keep the kernel's default size"),
    }
    Ok(socket)
}

/// Starts a QUIC endpoint that accepts what `tls` accepts.
///
/// `secret` is this node's alone and the same after a restart: from it come the marks by which a node that was killed
/// and started again knows packets of its former life, and the token that makes their sender give up at once (stateless
/// reset, RFC 9000 §10.3) instead of after its idle timeout.
///
/// # Errors
/// [`BindError`].
pub fn serve(socket: UdpSocket, tls: Arc<rustls::ServerConfig>, secret: &[u8]) -> Result<Endpoint, BindError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    let address = socket.local_addr();
    Endpoint::new(lasting(secret), Some(config), socket, Arc::new(DeferRuntime)).map_err(|source| {
        let address = address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        BindError::Socket { protocol: "UDP", address, source }
    })
}

/// Settings for a link whose packets come over TLS on TCP: those of any link, for one connection.
///
/// # Errors
/// [`BindError::Tls`].
pub(super) fn carried(tls: Arc<rustls::ServerConfig>) -> Result<ServerConfig, BindError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = transport();
    specter_carry::tune(&mut transport);
    config.transport_config(Arc::new(transport)).max_incoming(1).migration(false);
    Ok(config)
}

fn lasting(secret: &[u8]) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let reset = hmac::sign(&secret, b"specter stateless reset");
    let mark = hmac::sign(&secret, b"specter connection id");
    let mark = mark.as_ref().first_chunk().copied().map_or(0, u64::from_le_bytes);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(mark)));
    config
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_FROM_CLIENT))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(LINK_IDLE).expect("30 s is far below the bound of 2^62 ms")))
        .receive_window(VarInt::from_u32(STRANGER_RECEIVE_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    config
}

/// Lets the peer of a link send at full speed from now on: it is known.
pub fn widen(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(LINK_RECEIVE_WINDOW_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn who_had_connected_is_served_and_who_comes_later_finds_nobody() {
        let listener = Port::take(SocketAddr::from(([127, 0, 0, 1], 0))).and_then(Port::listen).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut early: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let made = close_listener(listener);
        assert_eq!(made.len(), early.len());
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        for ((mut near, peer), far) in made.into_iter().zip(&mut early) {
            assert_eq!(peer, far.local_addr().expect("bound"));
            far.write_all(b"hello").expect("written");
            let mut heard = [0; 5];
            near.read_exact(&mut heard).expect("read");
            assert_eq!(&heard, b"hello");
        }
    }
}
