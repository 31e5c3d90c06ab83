//! What differs between systems in writing a secret file.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use other::{create, keep_owner, sync_folder};
#[cfg(unix)]
pub(super) use unix::{create, keep_owner, sync_folder};
