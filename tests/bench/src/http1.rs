//! A visitor that speaks HTTP/1.1 with as little effort as can be: the machine is shared with what is measured.

use crate::{
    Outcome,
    path::{Path, Speaks, Stream, Visitors},
    target::{LARGE_PATH, SINK_PATH, SMALL_PATH},
};
use specter_wire::stream::CONNECTED;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One connection, kept alive between requests.
pub(crate) struct Connection {
    stream: Stream,
    /// The tunnel's status byte is still to come.
    status_due: bool,
}

/// The requests of a path, written out.
pub(crate) struct Requests {
    pub(crate) small: String,
    host: String,
}

static BODY: [u8; 64 << 10] = [b'y'; 64 << 10];

/// Read at once: more than rustls gives in one piece.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

impl Requests {
    pub(crate) fn to(path: &Path) -> Self {
        let host = path.host.clone();
        Self { small: format!("GET {SMALL_PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n"), host }
    }

    pub(crate) fn large(&self, bytes: u64) -> String {
        format!("GET {LARGE_PATH}{bytes} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)
    }

    fn upload(&self, bytes: u64) -> String {
        format!("POST {SINK_PATH} HTTP/1.1\r\nHost: {}\r\nContent-Length: {bytes}\r\n\r\n", self.host)
    }
}

impl Connection {
    pub(crate) async fn open(visitors: &Visitors, path: &Path) -> Outcome<Self> {
        Ok(Self { stream: visitors.connect().await?, status_due: path.speaks == Speaks::Connect })
    }

    /// Sends a request without a body and returns how many bytes of body came back.
    pub(crate) async fn exchange(&mut self, request: &str, buffer: &mut [u8]) -> Outcome<u64> {
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        self.answer(buffer).await
    }

    /// Sends a request with a body of that many bytes and waits for its answer.
    pub(crate) async fn upload(&mut self, requests: &Requests, bytes: u64, buffer: &mut [u8]) -> Outcome<()> {
        self.stream.write_all(requests.upload(bytes).as_bytes()).await?;
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(BODY.len());
            self.stream.write_all(&BODY[..length]).await?;
            left -= length as u64;
        }
        self.stream.flush().await?;
        self.answer(buffer).await.map(drop)
    }

    /// Sends a request, waits for the first byte of its answer, and leaves.
    pub(crate) async fn first_byte(mut self, request: &str, buffer: &mut [u8]) -> Outcome<()> {
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let mut needed = 1 + usize::from(self.status_due);
        while needed > 0 {
            let read = self.stream.read(buffer).await?;
            if read == 0 {
                return Err("the answer did not begin".into());
            }
            needed = needed.saturating_sub(read);
        }
        Ok(())
    }

    async fn answer(&mut self, buffer: &mut [u8]) -> Outcome<u64> {
        let mut filled = 0;
        let head = loop {
            let read = self.stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err("the answer ended in its head".into());
            }
            filled += read;
            if self.status_due {
                if buffer[0] != CONNECTED {
                    return Err(format!("the tunnel answered with status {}", buffer[0]).into());
                }
                buffer.copy_within(1..filled, 0);
                filled -= 1;
                self.status_due = false;
            }
            if let Some(head) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                break head + 4;
            }
        };
        let length = body_length(&buffer[..head])?;
        let mut left = length.saturating_sub((filled - head) as u64);
        while left > 0 {
            let read = self.stream.read(buffer).await?;
            if read == 0 {
                return Err(format!("the answer ended {left} bytes too early").into());
            }
            left = left.saturating_sub(read as u64);
        }
        Ok(length)
    }
}

/// Length of the body behind a head that says 200 and has a `Content-Length`.
fn body_length(head: &[u8]) -> Outcome<u64> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(format!("the answer is {}", head.lines().next().unwrap_or("empty")).into());
    }
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.ok_or("the answer does not say its length")?;
    Ok(length.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_found_in_any_case_and_only_a_200_counts() {
        assert_eq!(body_length(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 7\r\n\r\n").expect("length"), 7);
        assert!(body_length(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\n\r\n").is_err());
        assert!(body_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
