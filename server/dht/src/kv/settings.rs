//! The spans and bounds of a slot.

use std::time::Duration;

/// How patient a slot is. The defaults suit nodes within 50 ms of each other.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a leader asks its members whether it still leads.
    pub heartbeat: Duration,
    /// For how long after hearing a leader a member ignores other candidates.
    pub sticky: Duration,
    /// The shortest wait for a leader before an election; the longest is twice that, and it doubles with each failure.
    pub election: Duration,
    /// The longest a candidate takes to read what others hold.
    pub candidacy: Duration,
    /// How long a leader goes on without a quorum.
    pub step_down: Duration,
    /// How old a tombstone must be before it may go; longer than any client retries.
    pub purge_after: Duration,
    /// How long after a change of members was undone another one may begin.
    pub retry_after: Duration,
    /// How long a joint configuration may lack its new side before it is undone.
    pub abort_after: Duration,
    /// How long after what a member holds was last found to be right it is asked to list it.
    pub audit_after: Duration,
    /// How many bytes may be on their way that no client asked for: values written again, or sent again to members that
    /// lack them; one value at least.
    pub transfer_bytes: usize,
    /// How many bytes of what a member holds go into one message to a candidate; one value at least.
    pub page_bytes: usize,
    /// How many requests may wait at a leader.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            sticky: Duration::from_millis(2500),
            election: Duration::from_secs(3),
            candidacy: Duration::from_secs(60),
            step_down: Duration::from_secs(3),
            purge_after: Duration::from_secs(600),
            retry_after: Duration::from_secs(30),
            abort_after: Duration::from_secs(30),
            audit_after: Duration::from_secs(600),
            transfer_bytes: 256 << 10,
            page_bytes: 256 << 10,
            queue: 1024,
        }
    }
}
