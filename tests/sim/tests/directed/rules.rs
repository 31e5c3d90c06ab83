//! One scenario for each rule that chance hardly ever tests: kept, the promise holds; broken, it does not.

use specter_dht::kv::{Answer, Message, Operation, Rule, Rules};

use crate::stage::{Letter, Stage, write};

/// The scenario says whether the promise was kept: it must be with all rules, and must not be without this one.
pub(crate) fn decides(rule: Rule, scenario: fn(Rules) -> bool) {
    assert!(scenario(Rules::default()), "the promise holds when all rules are kept");
    assert!(!scenario(Rules::without(rule)), "the scenario notices that {rule:?} is broken");
}

fn kept(read: Option<Option<String>>, expected: Option<&str>) -> bool {
    read.is_none_or(|value| value.as_deref() == expected)
}

#[test]
fn a_leader_that_was_replaced_answers_no_reads() {
    decides(Rule::ConfirmReads, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        stage.put(1, "old");
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(2));
        stage.put(2, "new");
        kept(stage.get(1), Some("new"))
    });
}

#[test]
fn a_promise_outlives_a_restart() {
    decides(Rule::KeepPromise, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        stage.put(1, "old");
        // The new leader has a majority with node 2, which restarts and meets the old leader again.
        stage.reach(&[&[2, 3]]);
        stage.passes = |letter| !writes(letter);
        assert!(stage.elect(3));
        stage.passes = |_| true;
        stage.restart(2);
        stage.reach(&[&[1, 2]]);
        stage.wake(&[1]);
        kept_write_is_read(&mut stage)
    });
}

/// Node 1 writes with node 2 behind the back of node 3, which then reads with node 2.
fn kept_write_is_read(stage: &mut Stage) -> bool {
    let acked = stage.ask(1, "k", write("behind its back")) == Some(Answer::Done);
    stage.reach(&[&[2, 3]]);
    stage.wake(&[3]);
    !acked || kept(stage.get(3), Some("behind its back"))
}

#[test]
fn a_value_read_once_is_read_again_after_its_only_holder_is_gone() {
    decides(Rule::RewriteRecovered, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        stage.put(1, "old");
        stage.reach(&[]);
        assert_eq!(stage.ask(1, "k", write("in one place")), None);
        // Node 1 leads again and finds the value on its own disk only; nobody takes a copy.
        stage.restart(1);
        stage.reach(&[&[1, 2, 3]]);
        stage.passes = |letter| !matches!(letter.message, Message::Accept { .. });
        assert!(stage.elect(1));
        let first = stage.get(1);
        stage.passes = |_| true;
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(2));
        first.is_none() || stage.get(2) == first
    });
}

#[test]
fn a_tombstone_stays_until_every_member_has_it() {
    decides(Rule::PurgeAtAll, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        stage.put(1, "deleted");
        stage.reach(&[&[1, 2]]);
        assert_eq!(stage.ask(1, "k", Operation::Delete), Some(Answer::Done));
        stage.pass(2000);
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(3));
        kept(stage.get(3), None)
    });
}

#[test]
fn a_late_copy_of_a_write_does_not_undo_a_purge() {
    decides(Rule::PurgeMark, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        stage.put(1, "deleted");
        let is_copy = |letter: &&Letter| letter.to == 3 && matches!(letter.message, Message::Accept { .. });
        let copy = stage.seen.iter().find(is_copy).cloned().expect("node 3 was sent the value");
        assert_eq!(stage.ask(1, "k", Operation::Delete), Some(Answer::Done));
        stage.pass(2000);
        assert!(!stage.holds(3, "k"), "the tombstone is purged");
        stage.post(copy);
        assert!(stage.elect(3));
        kept(stage.get(3), None)
    });
}

#[test]
fn what_a_member_kept_from_an_earlier_tenure_does_not_count() {
    decides(Rule::Tenure, |rules| {
        let mut stage = Stage::new(rules, 3, 4);
        assert!(stage.elect(1));
        stage.put(1, "deleted");
        // Node 3 is replaced while it is away, the key goes, and node 3 comes back.
        stage.reach(&[&[1, 2, 4]]);
        stage.want(&[1, 2, 4]);
        stage.pass(1000);
        assert_eq!(stage.ask(1, "k", Operation::Delete), Some(Answer::Done));
        stage.pass(2000);
        assert!(!stage.holds(1, "k"), "the tombstone is purged");
        // Nobody looks at what it holds now.
        stage.passes = |letter| !matches!(letter.message, Message::List { .. });
        stage.reach(&[&[1, 2, 3, 4]]);
        stage.want(&[1, 2, 3]);
        stage.pass(1000);
        assert!(stage.config(1).is_stable() && stage.config(1).contains(specter_dht::NodeId(3)));
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(2));
        kept(stage.get(2), None)
    });
}

#[test]
fn a_change_of_members_takes_every_key_along() {
    let mut stage = Stage::new(Rules::default(), 3, 6);
    assert!(stage.elect(1));
    stage.put(1, "kept");
    stage.want(&[4, 5, 6]);
    stage.pass(1000);
    assert!(!stage.leads(1) && !stage.holds(1, "k"), "who is out leads no more and keeps nothing");
    stage.reach(&[&[4, 5, 6]]);
    assert!(stage.elect(5));
    assert_eq!(stage.get(5), Some(Some("kept".into())));
}

#[test]
fn a_write_that_was_lost_on_its_way_to_a_new_member_does_not_hold_a_change_up() {
    let mut stage = Stage::new(Rules::default(), 3, 6);
    assert!(stage.elect(1));
    for key in ["a", "b", "k"] {
        assert_eq!(stage.ask(1, key, write("old")), Some(Answer::Done));
    }
    // A write waits until the change has begun, and then is lost, as is key "b" on its way to the new members.
    stage.passes = |letter| !matches!(letter.message, Message::AcceptConfig { .. });
    stage.want(&[4, 5, 6]);
    stage.pass(100);
    stage.send(1, "k", write("new"), 1000);
    stage.passes = |letter| letter.to <= 3 || !matches!(&letter.message, Message::Accept { key, .. } if key != b"a");
    stage.pass(300);
    assert!(!stage.config(1).is_stable() && stage.holds(4, "a") && !stage.holds(4, "b"));
    stage.passes = |_| true;
    stage.pass(800);
    assert!(!stage.leads(1) && stage.config(4).is_stable(), "the change has come to its end");
}

#[test]
fn a_leader_undoes_a_change_whose_new_side_is_away() {
    let mut stage = Stage::new(Rules::default(), 3, 5);
    assert!(stage.elect(1));
    stage.put(1, "before");
    stage.reach(&[&[1, 2, 3]]);
    stage.want(&[1, 4, 5]);
    stage.pass(500);
    assert_eq!(stage.ask(1, "k", write("waits")), None, "nothing is decided without the new side");
    stage.want(&[1, 2, 3]);
    stage.pass(2000);
    assert!(stage.leads(1) && stage.config(1).is_stable() && stage.config(1).nodes().len() == 3);
    assert_eq!(stage.get(1), Some(Some("waits".into())));
}

/// Whether a letter would end a change of members.
fn reduces(letter: &Letter) -> bool {
    matches!(&letter.message, Message::AcceptConfig { config, .. } if config.is_stable())
}

fn writes(letter: &Letter) -> bool {
    matches!(letter.message, Message::Accept { .. })
}

#[test]
fn an_old_member_keeps_its_keys_until_the_change_is_chosen() {
    decides(Rule::WipeWhenChosen, |rules| {
        let mut stage = Stage::new(rules, 3, 5);
        assert!(stage.elect(1));
        // Of the old members only 1 and 3 hold the key, and the change to 1, 4 and 5 is begun.
        stage.passes = |letter| !writes(letter) || letter.to == 3;
        stage.put(1, "acked");
        stage.want(&[1, 4, 5]);
        stage.pass(300);
        // Node 4 ends it, but of the old members only 3 hears so.
        stage.passes = |letter| if reduces(letter) { letter.to == 3 } else { letter.to != 2 || !writes(letter) };
        stage.elect(4);
        assert!(stage.config(3).is_stable() && stage.config(3).leaving.is_some(), "{:?}", stage.config(3));
        assert!(!stage.config(1).is_stable() && !stage.config(2).is_stable());
        // 4 and 5 are gone, so 1 and 2 undo the change; nobody writes the key again.
        stage.passes = |letter| !writes(letter);
        stage.reach(&[&[1, 2]]);
        assert!(stage.elect(1), "the old side undoes the change");
        stage.reach(&[&[1, 2, 3]]);
        stage.pass(500);
        stage.passes = |_| true;
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(3));
        kept(stage.get(3), Some("acked"))
    });
}

#[test]
fn a_leader_has_its_configuration_accepted_before_it_writes() {
    decides(Rule::ReacceptConfig, end_of_a_change_against_its_undoing);
}

#[test]
fn the_end_of_a_change_needs_the_old_side_until_it_is_known_to_be_chosen() {
    decides(Rule::HandOver, end_of_a_change_against_its_undoing);
}

/// One side of a joint configuration ends the change while the other undoes it: not both may succeed.
fn end_of_a_change_against_its_undoing(rules: Rules) -> bool {
    let mut stage = Stage::new(rules, 3, 6);
    assert!(stage.elect(1));
    stage.put(1, "old");
    // The change to 4, 5 and 6 is begun by 1; the end of it is accepted by 4 alone.
    stage.passes = |letter| !reduces(letter) || letter.to == 4;
    stage.want(&[4, 5, 6]);
    stage.pass(500);
    assert!(stage.config(4).is_stable() && !stage.config(5).is_stable());
    stage.restart(1);
    // 4 gets promises from both sides, then loses sight of the old one, which undoes the change.
    stage.passes = |letter| letter.to > 3 || matches!(letter.message, Message::Prepare { .. });
    stage.elect(4);
    let acked = stage.leads(4) && stage.ask(4, "k", write("new")) == Some(Answer::Done);
    stage.passes = |_| true;
    stage.reach(&[&[2, 3]]);
    assert!(stage.elect(2), "the old side undoes the change");
    !acked || kept(stage.get(2), Some("new"))
}

#[test]
fn a_ballot_is_on_the_candidates_disk_before_anybody_hears_of_it() {
    decides(Rule::OwnBallotFirst, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        stage.stalled.insert(1);
        stage.passes = |letter| letter.from == 1 || letter.to == 1;
        if !stage.elect(1) {
            return true;
        }
        let promises: Vec<Letter> = stage.seen.clone();
        let promises = promises.into_iter().filter(|letter| matches!(letter.message, Message::Promise { .. }));
        let promises: Vec<Letter> = promises.collect();
        stage.put(1, "first");
        // It forgets its ballot, claims it again, and gets the old promises before it hears anything new.
        stage.restart(1);
        stage.stalled.clear();
        stage.passes = |letter| !matches!(letter.message, Message::Promise { .. } | Message::Nack { .. });
        stage.wake(&[1]);
        for _ in 0..200 {
            stage.pass(10);
            promises.iter().for_each(|letter| stage.post(letter.clone()));
            if stage.leads(1) {
                break;
            }
        }
        stage.passes = |_| true;
        let second = stage.ask(1, "k", write("other")) == Some(Answer::Done);
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(2));
        !second || kept(stage.get(2), Some("other"))
    });
}
