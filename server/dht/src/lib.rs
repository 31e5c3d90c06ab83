//! Specter's ring and its replicated key-value store, without sockets, clock, files or randomness of its own.
//!
//! A [`Node`] takes one [`Input`] at a time together with the present instant, and hands out [`Output`]s until it names the
//! instant at which it wants to be woken. Whoever runs it carries packets, writes records to a log and says when they are on
//! the disk, and turns the clock; `examples/three_nodes.rs` does that for three nodes in one program.
//!
//! - [`ring`]: Chord. Who comes after whom, and how to find who stands where.
//! - [`kv`]: one slot. The registers of one slice of the ring, kept by a few nodes that agree.
//! - [`node`]: one ring and many slots, the requests of a node's users, and who should keep what.
//! - [`codec`]: bytes of packets and records, and the bounds that everything in them is held to.
//!
//! # What it promises, and what shows it
//!
//! Every sentence is checked in random worlds too: single slots (`tests/sim/tests/seeds.rs`) and whole clusters
//! (`tests/sim/tests/cluster.rs`) that lose messages, disks and power, and exhaustively for a small slot
//! (`server/dht/src/kv/tests/model.rs`).
//!
//! | promise | shown by |
//! |---|---|
//! | Every operation on a key takes effect at one instant between its call and its answer, whatever joins, leaves, crashes and parts. | `every_promise_holds_in_many_clusters`; `a_leader_that_was_replaced_answers_no_reads`; the model |
//! | An operation is done once at most, however often it is sent. | scenario `duplicate-request`; the broken variant `no-dedupe` |
//! | An acknowledged write is on the disks of a majority of the key's replicas. | the simulator looks at every disk whenever a leader answers; the broken variants `ack-before-fsync` and `weak-quorum` |
//! | A minority may lose its disks, and all may lose power at once, and nothing acknowledged is lost. | scenarios `lost-disk-is-a-new-node`, `all-restart-at-once`, `all-replicas-restart-at-once`, `torn-log-starts-again` |
//! | Reads and writes go on while a majority of the key's replicas can reach each other and the caller. | scenarios `leader-crash`, `split-two-and-one`; every world must answer once faults stop |
//! | A minority refuses writes and linearizable reads, and never answers wrongly. | scenarios `split-two-and-one`, `split-two-and-two` |
//! | A hint read answers from any one replica, when a majority is out of reach too. | scenario `split-two-and-one` |
//! | A lease has one holder at a time as far as clocks keep their rate, and its token grows in any case. | scenario `lease-survives-everything`; the simulator follows every grant and every fenced write |
//! | Safety never depends on the ring. | in the slots' worlds the ring wants members at random |
//!
//! # What notices a broken rule
//!
//! Each rule can be broken on purpose ([`kv::Rules`], feature `broken`), and each variant is noticed in every run of the tests:
//! by the one named here, or in the first worlds of `tests/sim/tests/seeds.rs`. By chance it is noticed after so many worlds
//! from seed 1000 on, or not in forty seconds (`cargo run --release -p sim --features broken -- --slot-seeds 1000..3000 --broken NAME`):
//!
//! | variant | rule | worlds | noticed by |
//! |---|---|---|---|
//! | `ack-before-fsync` | A1 | 1 | |
//! | `weak-quorum` | a quorum is a majority | 1 | |
//! | `joint-one-side` | R2, R3 | 1 | |
//! | `read-without-confirm` | L5 | 22 | `a_leader_that_was_replaced_answers_no_reads` |
//! | `forgotten-promise` | A1, A3 | 1 | `a_promise_outlives_a_restart` |
//! | `no-dedupe` | L4 | 2 | scenario `duplicate-request` |
//! | `recovered-trusted` | L2 | 31 | `a_value_read_once_is_read_again_after_its_only_holder_is_gone` |
//! | `purge-at-quorum` | G2 | 868 | `a_tombstone_stays_until_every_member_has_it` |
//! | `no-purge-mark` | A7 | – | `a_late_copy_of_a_write_does_not_undo_a_purge` |
//! | `unread-reports` | L2 | 23 | `a_candidate_reads_all_that_it_lacks_before_it_leads` |
//! | `votes-with-loss` | A2 | – | `a_member_that_has_lost_a_value_does_not_vote` |
//! | `reused-sequence` | L2 | 1 | |
//! | `no-reaccept` | L3 | 53 | `a_leader_has_its_configuration_accepted_before_it_writes` |
//! | `end-without-old` | R3, L3 | – | `the_end_of_a_change_needs_the_old_side_until_it_is_known_to_be_chosen` |
//! | `no-transfer` | R2 | 1 | |
//! | `stale-tenure` | A6 | 952 | `what_a_member_kept_from_an_earlier_tenure_does_not_count` |
//! | `early-wipe` | A8 | – | `an_old_member_keeps_its_keys_until_the_change_is_chosen` |
//! | `ballot-not-persisted` | L1 | – | `a_ballot_is_on_the_candidates_disk_before_anybody_hears_of_it` |
//! | `kept-identity` | incarnations | 40 clusters | scenario `lost-disk-is-a-new-node` |
//!
//! Not promised: writes without a majority, operations on several keys at once, service from a slot whose majority has lost its
//! disks, and anything against a node of the cluster that lies.

mod ballot;
pub mod codec;
mod io;
pub mod kv;
pub mod node;
mod peer;
mod point;
mod random;
pub mod ring;
mod state;
mod time;

pub use ballot::{Ballot, NodeId, Version};
pub use io::{Ask, ClusterId, Event, Failure, Freshness, Input, Output, Packet, Part, Reply, SlotId, Terms};
pub use node::{Life, Node};
pub use peer::{Peer, SEATS_MAX};
pub use point::Point;
pub use random::Random;
pub use state::{Record, State};
pub use time::Instant;
