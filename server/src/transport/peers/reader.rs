//! One connection that another node opened: its packets are read until it ends.

use super::{Arrival, PACKET_BYTES, Peers, STREAMS, WINDOW_BYTES};
use crate::transport::{
    endpoint::{CLOSE_NORMAL, CLOSE_VIOLATION},
    room::Place,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use quinn::{Connection, ReadToEndError, RecvStream, VarInt};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// Packets that are read at a time from one connection. Other streams wait inside the connection's window, so a node
/// that leaves streams unfinished makes us hold little.
const READ_AT_ONCE: usize = 16;

/// A packet whose stream was taken up must come in this time.
const PACKET_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without packets is closed after this long, in favour of others that need its place.
const IDLE: Duration = Duration::from_secs(30);

/// The task of one connection.
pub(super) struct Reader {
    peers: Arc<Peers>,
    connection: Connection,
    _place: Place,
}

/// What became of a packet.
enum Packet {
    Whole(Bytes),
    TooLong,
    /// Broken off, too slow, or lost with its connection.
    Lost,
}

impl Reader {
    /// Opens the connection, on which strangers may send nothing, for a node's packets.
    pub(super) fn new(peers: Arc<Peers>, connection: Connection, place: Place) -> Self {
        connection.set_receive_window(VarInt::from_u32(WINDOW_BYTES));
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
        Self { peers, connection, _place: place }
    }

    /// Reads packets until the connection ends or the node stops.
    pub(super) async fn run(self) {
        let mut reading = FuturesUnordered::new();
        let mut idle_at = Instant::now() + IDLE;
        loop {
            tokio::select! {
                () = self.peers.shutdown.stopping() => return,
                stream = self.connection.accept_uni(), if reading.len() < READ_AT_ONCE => match stream {
                    Ok(stream) => reading.push(read(stream)),
                    Err(error) => {
                        let peer = self.connection.remote_address();
                        return tracing::debug!(%peer, %error, "a connection of a node ended");
                    }
                },
                Some(packet) = reading.next() => match packet {
                    Packet::Whole(bytes) => {
                        idle_at = Instant::now() + IDLE;
                        self.deliver(bytes);
                    }
                    Packet::TooLong => return self.connection.close(CLOSE_VIOLATION.into(), b"a packet is too long"),
                    Packet::Lost => self.peers.counts.unread.add(1),
                },
                () = sleep_until(idle_at) => return self.connection.close(CLOSE_NORMAL.into(), b"idle"),
            }
        }
    }

    /// A full inbox loses the packet: waiting would fill the windows of every node that sends to us, with packets that
    /// are too old when they are read.
    fn deliver(&self, bytes: Bytes) {
        let from = self.connection.remote_address();
        match self.peers.inbox.try_send(Arrival::Packet { from, bytes }) {
            Ok(()) => self.peers.counts.received.add(1),
            Err(_) => self.peers.counts.unread.add(1),
        }
    }
}

async fn read(mut stream: RecvStream) -> Packet {
    match timeout(PACKET_TIMEOUT, stream.read_to_end(PACKET_BYTES)).await {
        Ok(Ok(bytes)) => Packet::Whole(bytes.into()),
        Ok(Err(ReadToEndError::TooLong)) => Packet::TooLong,
        Ok(Err(ReadToEndError::Read(_))) | Err(_) => Packet::Lost,
    }
}
