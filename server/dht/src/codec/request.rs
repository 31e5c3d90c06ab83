//! Bounds of what clients ask.

use super::{Bounded, check_seq, ensure};
use crate::kv::{Operation, Request};

impl Bounded for Request {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.fits(), "a request is too large, or its lease too short or too long")?;
        match &self.operation {
            Operation::Put { fence: Some(fence), .. } => check_seq(fence.token),
            Operation::Renew { token } | Operation::Release { token } => check_seq(*token),
            Operation::Get
            | Operation::Put { fence: None, .. }
            | Operation::Delete
            | Operation::CompareAndSwap { .. }
            | Operation::Append(_)
            | Operation::Remove(_)
            | Operation::Contains(_)
            | Operation::List
            | Operation::Acquire { .. } => Ok(()),
        }
    }
}
