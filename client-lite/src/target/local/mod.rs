//! Targets on the same machine that are no network sockets: Unix sockets here, named pipes on Windows.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::{Local, check_pipe, connect_pipe, connect_socket, socket_path};
#[cfg(windows)]
pub(super) use windows::{Local, check_pipe, connect_pipe, connect_socket, socket_path};
