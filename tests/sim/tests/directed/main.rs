//! Slots moved by hand through what chance hardly ever brings about.

mod audits;
mod changes;
mod cost;
mod reading;
mod rules;
mod stage;
