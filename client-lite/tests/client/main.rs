//! The client from outside: its library against a node in the test's process, and its program.

mod commands;
mod fake_node;
mod running;
mod streams;
mod tunnel;
