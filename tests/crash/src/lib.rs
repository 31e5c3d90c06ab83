//! Real processes that die, and real disks that fill up.
//!
//! ```text
//! parent: ledger ──calls──▶ pipe ──▶ child: a node's store on a data directory
//!                ◀─answers─ pipe ◀──
//! ```
//! The child is this program too (`crash node`): the store as `specter-server run` has it, and nothing around it. What it
//! acknowledged is noted outside of it, in the [`ledger`]; whatever becomes of the child, the next one must have that.
//!
//! | module | does |
//! |---|---|
//! | [`node`] | the child |
//! | [`child`] | starts, asks and kills it |
//! | [`ledger`] | what was asked, what was acknowledged, what must be there |
//! | [`kill`] | kills it under load, many times |
//! | [`first`] | kills the start that makes a directory |
//! | [`full`] | fills its disk |
//! | [`restart`] | how long a start takes on a million keys |

pub mod child;
pub mod first;
pub mod full;

pub mod kill;
pub mod ledger;
pub mod node;
pub mod restart;

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to but without `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
