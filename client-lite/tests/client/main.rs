//! The client from outside: its library against a node in the test's process, and its program.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers as well")]

mod commands;
mod fake_node;
mod links;
mod running;
mod streams;
mod tunnel;
