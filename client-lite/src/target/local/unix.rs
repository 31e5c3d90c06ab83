//! Unix sockets.

use super::super::{TargetError, TargetStream};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A local connection.
pub(crate) type Local = tokio::net::UnixStream;

/// Checks the path behind `unix://`.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, TargetError> {
    if text.starts_with('/') { Ok(PathBuf::from(text)) } else { Err(TargetError::Relative) }
}

/// Named pipes exist on Windows only.
pub(crate) fn check_pipe() -> Result<(), TargetError> {
    Err(TargetError::Platform)
}

pub(crate) async fn connect_socket(path: &Path) -> io::Result<TargetStream> {
    Local::connect(path).await.map(TargetStream::Local)
}

pub(crate) async fn connect_pipe(_name: &str) -> io::Result<TargetStream> {
    Err(io::ErrorKind::Unsupported.into())
}
