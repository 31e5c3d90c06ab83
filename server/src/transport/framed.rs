//! Frames on byte streams.

use serde::Serialize;
use specter_wire::codec::{self, FrameError, PREFIX_BYTES};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Why no frame could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FramedError {
    /// The stream failed, or ended inside a frame.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The peer's bytes, or our message, are no frame.
    #[error("the frame is wrong")]
    Frame(#[from] FrameError),
}

/// Reads the body of one frame of at most `limit` bytes; none when the stream ended before a frame began.
///
/// # Errors
/// [`FramedError`]; the stream cannot be read on.
///
/// # Cancel safety
/// Not cancel safe: a frame may be half read.
pub async fn read_body<R>(stream: &mut R, limit: usize) -> Result<Option<Vec<u8>>, FramedError>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; PREFIX_BYTES];
    if stream.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut prefix[1..]).await?;
    let length = codec::body_length(prefix, limit)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

/// The bytes of one frame of at most `limit` bytes of body.
///
/// # Errors
/// [`FrameError::Buffer`] if the message is longer.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut buffer = vec![0; PREFIX_BYTES + limit];
    let length = codec::encode(message, &mut buffer)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use specter_wire::link::{ClientFrame, Request};
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn frames_follow_each_other_and_the_end_is_told() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let frame = |id| ClientFrame { id, request: Request::Claim { count: 3 } };
        let writer = tokio::spawn(async move {
            for id in [1, 2] {
                near.write_all(&encode(&frame(id), 64).expect("fits")).await.expect("written");
            }
        });
        for id in [1, 2] {
            let body = read_body(&mut far, 64).await.expect("read").expect("a frame");
            assert_eq!(codec::decode::<ClientFrame<'_>>(&body).expect("decoded"), frame(id));
        }
        assert!(read_body(&mut far, 64).await.expect("end").is_none());
        writer.await.expect("writer");
    }

    #[tokio::test]
    async fn an_oversize_frame_is_refused_before_its_body() {
        let mut bytes: &[u8] = &[0xff, 0xff, 1, 2, 3];
        let error = read_body(&mut bytes, 64).await.expect_err("refused");
        assert!(matches!(error, FramedError::Frame(FrameError::Length(0xffff))));
        assert_eq!(bytes.len(), 3);
    }
}
