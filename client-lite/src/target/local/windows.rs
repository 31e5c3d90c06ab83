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
