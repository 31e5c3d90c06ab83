//! Named pipes.

use super::super::{TargetError, TargetStream};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};

/// A local connection.
pub(crate) type Local = NamedPipeClient;

/// Unix sockets are not offered on Windows.
pub(crate) fn socket_path(_text: &str) -> Result<PathBuf, TargetError> {
    Err(TargetError::Platform)
}

/// Named pipes exist here.
pub(crate) fn check_pipe() -> Result<(), TargetError> {
    Ok(())
}

pub(crate) async fn connect_socket(_path: &Path) -> io::Result<TargetStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens the pipe, trying again while all its instances are taken. The caller bounds the wait.
pub(crate) async fn connect_pipe(name: &str) -> io::Result<TargetStream> {
    loop {
        match ClientOptions::new().open(name) {
            Ok(pipe) => return Ok(TargetStream::Local(pipe)),
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// The system's number for a pipe whose instances are all taken.
const ERROR_PIPE_BUSY: i32 = 231;

/// Windows offers no event to wait for here.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::windows::named_pipe::ServerOptions,
    };

    fn name(of: &str) -> String {
        format!(r"\\.\pipe\client-lite-{}-{of}", std::process::id())
    }

    #[tokio::test]
    async fn a_pipe_carries_bytes_both_ways_to_its_end() {
        let name = name("echo");
        let mut server = ServerOptions::new().first_pipe_instance(true).create(&name).expect("pipe");
        let serve = async {
            server.connect().await.expect("client");
            let mut bytes = [0; 5];
            server.read_exact(&mut bytes).await.expect("bytes");
            server.write_all(&bytes).await.expect("answer");
        };
        let ask = async {
            let mut pipe = connect_pipe(&name).await.expect("pipe");
            pipe.write_all(b"hello").await.expect("write");
            let mut bytes = [0; 5];
            pipe.read_exact(&mut bytes).await.expect("read");
            bytes
        };
        let (bytes, ()) = tokio::join!(ask, serve);
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn a_pipe_whose_instances_are_all_taken_is_waited_for() {
        let name = name("busy");
        let first = ServerOptions::new().first_pipe_instance(true).create(&name).expect("pipe");
        let taken = connect_pipe(&name).await.expect("first");
        let mut second = std::pin::pin!(connect_pipe(&name));
        // Long enough for a try that fails, and no more is claimed.
        tokio::time::timeout(BUSY_PAUSE, &mut second).await.expect_err("no instance is free");
        let _free = ServerOptions::new().create(&name).expect("another instance");
        second.await.expect("second");
        drop((first, taken));
    }

    #[tokio::test]
    async fn a_pipe_that_nobody_serves_fails_at_once() {
        let error = connect_pipe(&name("nobody")).await.expect_err("no such pipe");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
