//! Joins two streams: whatever comes on one goes out on the other, chunk by chunk without a copy. Ends, resets and stops
//! are passed on, each in its direction.

use super::open::{LINK_LOST, LinkStream};
use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use std::pin::pin;

/// Most chunks taken at once: a batch of packets.
const CHUNKS: usize = 48;

/// Carries bytes between a stream of another node and one on a link until both directions have ended.
pub(super) async fn join((mut send, mut recv): (SendStream, RecvStream), stream: LinkStream) {
    let LinkStream { send: mut to_client, recv: mut from_client, .. } = stream;
    tokio::join!(carry(&mut recv, &mut to_client), carry(&mut from_client, &mut send));
}

/// Carries one direction to its end. Whether the link lives is asked by the node where somebody waits.
async fn carry(recv: &mut RecvStream, send: &mut SendStream) {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    let mut stopped = pin!(send.stopped());
    loop {
        let read = tokio::select! {
            biased;
            read = recv.read_chunks(&mut chunks) => read,
            stop = &mut stopped => return end_reading(recv, stop.ok().flatten().unwrap_or(LINK_LOST)),
        };
        match read {
            Ok(Some(count)) => match send.write_all_chunks(&mut chunks[..count]).await {
                Ok(()) => {}
                Err(WriteError::Stopped(code)) => return end_reading(recv, code),
                Err(_) => return end_reading(recv, LINK_LOST),
            },
            Ok(None) => {
                // Fails only if the other side stopped reading before.
                let _ = send.finish();
                return;
            }
            Err(error) => {
                let code = if let ReadError::Reset(code) = error { code } else { LINK_LOST };
                // Fails only on a stream that has ended already.
                let _ = send.reset(code);
                return;
            }
        }
    }
}

fn end_reading(recv: &mut RecvStream, code: VarInt) {
    // Fails only on a stream that has ended already.
    let _ = recv.stop(code);
}
