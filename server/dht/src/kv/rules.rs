//! The rules a test may break on purpose.

/// One rule of the protocol. Each is broken by a variant that the simulator must catch; a rule whose absence nobody
/// notices is either not needed or not tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A1: nothing leaves before what it rests on is on the disk. Broken: answers before the fsync.
    PersistBeforeReply,
    /// More than half of the members. Broken: one short of it.
    MajorityQuorum,
    /// R2, R3: a joint configuration needs both sides. Broken: the new side alone.
    BothSides,
    /// L5: a read asks a quorum whether the leader still leads. Broken: it does not ask.
    ConfirmReads,
    /// The promise outlives a restart. Broken: it is forgotten.
    KeepPromise,
    /// L4: an operation is done once however often it is sent. Broken: every copy is done.
    Dedupe,
    /// L2: a recovered value is written again before it is trusted. Broken: trusted as found.
    RewriteRecovered,
    /// G2: a tombstone goes when all members hold it. Broken: when a quorum does.
    PurgeAtAll,
    /// A7: who purges remembers up to which version. Broken: it forgets.
    PurgeMark,
    /// L2: a candidate leads only when it has all that those hold whose promises it counts. Broken: it leads on what it
    /// holds itself.
    ReadReports,
    /// A2: a member that has lost a value does not vote. Broken: it votes with what is left.
    VoteWhole,
    /// L2: the sequence goes on from leader to leader. Broken: it starts anew.
    SequenceGrows,
    /// L3: a leader has its configuration accepted again before anything else. Broken: it does not.
    ReacceptConfig,
    /// R3, L3: the end of a change needs the old side until it is known to be chosen, whoever proposes it again. Broken: the
    /// next leader lets the new side decide alone.
    HandOver,
    /// R2: new members get every key before the old ones go. Broken: they get nothing.
    Transfer,
    /// A6: what a member kept from an earlier tenure does not count. Broken: it does.
    Tenure,
    /// A8: an old member wipes its keys when it knows that it is out. Broken: when it was only asked.
    WipeWhenChosen,
    /// A candidate writes its ballot to its own disk before it asks. Broken: it asks at once.
    OwnBallotFirst,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 18] = [
        Self::PersistBeforeReply,
        Self::MajorityQuorum,
        Self::BothSides,
        Self::ConfirmReads,
        Self::KeepPromise,
        Self::Dedupe,
        Self::RewriteRecovered,
        Self::PurgeAtAll,
        Self::PurgeMark,
        Self::ReadReports,
        Self::VoteWhole,
        Self::SequenceGrows,
        Self::ReacceptConfig,
        Self::HandOver,
        Self::Transfer,
        Self::Tenure,
        Self::WipeWhenChosen,
        Self::OwnBallotFirst,
    ];

    /// The name of the variant in which it is broken.
    pub const fn broken_name(self) -> &'static str {
        match self {
            Self::PersistBeforeReply => "ack-before-fsync",
            Self::MajorityQuorum => "weak-quorum",
            Self::BothSides => "joint-one-side",
            Self::ConfirmReads => "read-without-confirm",
            Self::KeepPromise => "forgotten-promise",
            Self::Dedupe => "no-dedupe",
            Self::RewriteRecovered => "recovered-trusted",
            Self::PurgeAtAll => "purge-at-quorum",
            Self::PurgeMark => "no-purge-mark",
            Self::ReadReports => "unread-reports",
            Self::VoteWhole => "votes-with-loss",
            Self::SequenceGrows => "reused-sequence",
            Self::ReacceptConfig => "no-reaccept",
            Self::HandOver => "end-without-old",
            Self::Transfer => "no-transfer",
            Self::Tenure => "stale-tenure",
            Self::WipeWhenChosen => "early-wipe",
            Self::OwnBallotFirst => "ballot-not-persisted",
        }
    }
}

/// Which rules a slot keeps: all of them, unless the `broken` feature is on and a test says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    #[cfg(feature = "broken")]
    broken: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(feature = "broken")]
    pub const fn without(rule: Rule) -> Self {
        Self { broken: Some(rule) }
    }

    /// Whether the rule is kept; always true outside tests, and known to be so by the compiler.
    #[cfg(feature = "broken")]
    pub(crate) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// Whether the rule is kept; always true outside tests, and known to be so by the compiler.
    #[cfg(not(feature = "broken"))]
    pub(crate) const fn keeps(self, _rule: Rule) -> bool {
        true
    }
}
