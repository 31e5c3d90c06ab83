//! Slots moved by hand through what chance hardly ever brings about.

mod cost;
mod rules;
mod stage;
