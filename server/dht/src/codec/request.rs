//! Bounds of what clients ask.

use super::register::{check_owner, check_ttl};
use super::{Bounded, check_key, check_number, check_value};
use crate::kv::{Fence, Operation, Request};

impl Bounded for Request {
    fn check(&self) -> Result<(), &'static str> {
        let Self { key, op: _, operation } = self;
        check_key(key)?;
        operation.check()
    }
}

impl Bounded for Operation {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Get | Self::Delete | Self::List => Ok(()),
            Self::Put { value, fence } => {
                check_value(value)?;
                fence.check()
            }
            Self::CompareAndSwap { expected, new } => {
                [expected, new].into_iter().flatten().try_for_each(|value| check_value(value))
            }
            Self::Append(child) | Self::Remove(child) | Self::Contains(child) => check_value(child),
            Self::Acquire { owner, nonce: _, ttl } => {
                check_owner(owner)?;
                check_ttl(*ttl)
            }
            Self::Renew { token } | Self::Release { token } => check_number(*token),
        }
    }
}

impl Bounded for Fence {
    fn check(&self) -> Result<(), &'static str> {
        let Self { lease_key, token } = self;
        check_key(lease_key)?;
        check_number(*token)
    }
}
