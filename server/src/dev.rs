//! x
use crate::{args::Dev, serve::ServeError};
/// x
/// # Errors
/// x
pub fn dev(_: Dev) -> Result<(), ServeError> {
    Ok(())
}
