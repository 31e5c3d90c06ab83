//! One slot: the registers of one slice of the ring, kept by a few nodes that agree.
//!
//! - [`register`]: what one key holds, and every operation on it, as a pure function.
//! - [`config`]: who may answer for the slot, and how many of them must agree.
//! - [`limits`], `guard`: every bound, and what is not listened to.
//! - [`durable`]: what a member must find again after a crash, as a fold over its log.
//! - `acceptor`: what a member answers to a leader (rules A1 to A8).
//! - `returning`, `election`, `recovery`, `leader`, `writing`, `reading`, `transfer`, `audit`, `upkeep`: how one member comes to lead, and what it then does (rules L1 to L6).
//! - `keys`, `roster`: what a leader knows of its keys, and of who has them.
//! - `reconfigure`: how the members of a slot change (rules R1 to R5).
//!
//! ```text
//! Request → leader: register::apply → Accept to the members → acceptor: Append → Persisted → Accepted → quorum: Reply
//! ```

mod acceptor;
mod audit;
pub mod config;
mod digest;
pub mod durable;
mod election;
mod forced;
mod guard;
mod keys;
mod leader;
pub mod limits;
mod message;
mod outbox;
mod reading;
mod reconfigure;
mod recovery;
pub mod register;
mod returning;
mod roster;
mod rules;
mod settings;
mod slot;
mod transfer;
mod upkeep;
mod writing;

pub use config::{Config, Member};
pub use digest::Digest;
pub use durable::{Durable, Entry, Meta, Registers};
pub use message::{Input, Message, Output, Refusal, Report, Request, RequestId};
pub use register::{Answer, Fence, Key, Lease, OpId, Operation, Register};
pub use rules::{Rule, Rules};
pub use settings::Settings;
pub use slot::Slot;

#[cfg(test)]
mod tests;
