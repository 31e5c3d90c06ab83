//! How members that do not hold what they should are found out and get it back.

use specter_dht::kv::{Answer, Entry, Message, Operation, Rule, Rules};

use crate::stage::{Letter, Stage, write};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn filled(rules: Rules) -> Stage {
    let mut stage = Stage::new(rules, 3, 3);
    assert!(stage.elect(1));
    for key in KEYS {
        assert_eq!(stage.ask(1, key, write(key)), Some(Answer::Done));
    }
    stage.pass(200);
    stage.seen.clear();
    stage
}

fn lists(letter: &Letter) -> bool {
    matches!(letter.message, Message::List { .. } | Message::Listed { .. })
}

#[test]
fn a_slot_at_rest_is_compared_without_a_list() {
    let mut stage = filled(Rules::default());
    stage.pass(5000);
    assert!(!stage.seen.iter().any(lists));
}

#[test]
fn a_value_lost_by_a_disk_is_fetched_again_and_only_that() {
    for node in [1, 2, 3] {
        let mut stage = filled(Rules::default());
        assert!(stage.forget(node, "b"));
        assert!(!stage.forget(node, "never written"));
        assert!(!stage.holds(node, "b"));
        stage.pass(300);
        assert!(stage.holds(node, "b"), "node {node}");
        let sent = |letter: &&Letter| matches!(&letter.message, Message::Accept { .. });
        assert_eq!(stage.seen.iter().filter(sent).count(), usize::from(node != 1));
    }
}

#[test]
fn a_loss_is_not_forgotten_in_a_restart() {
    let mut stage = filled(Rules::default());
    stage.reach(&[&[1, 3]]);
    assert!(stage.forget(2, "b"));
    stage.restart(2);
    stage.reach(&[&[2, 3]]);
    assert!(!stage.elect(2), "it does not claim the lead");
    assert!(!stage.elect(3), "it does not vote for another");
    stage.reach(&[&[1, 2, 3]]);
    assert!(stage.elect(1));
    stage.pass(500);
    assert!(stage.holds(2, "b"));
    stage.reach(&[&[2, 3]]);
    assert!(stage.elect(3), "it votes again");
}

#[test]
fn a_member_that_has_lost_a_value_does_not_vote() {
    crate::rules::decides(Rule::VoteWhole, |rules| {
        let mut stage = Stage::new(rules, 3, 3);
        assert!(stage.elect(1));
        // Only 1 and 2 hold it, and 2 loses it.
        stage.passes = |letter| letter.to != 3 || !matches!(letter.message, Message::Accept { .. });
        stage.put(1, "acked");
        stage.reach(&[&[2, 3]]);
        assert!(stage.forget(2, "k"));
        stage.passes = |_| true;
        !stage.elect(3) || stage.get(3).is_none_or(|value| value.as_deref() == Some("acked"))
    });
}

#[test]
fn a_loss_is_not_made_good_by_something_older() {
    let mut stage = filled(Rules::default());
    let is_copy =
        |letter: &&Letter| letter.to == 2 && matches!(&letter.message, Message::Accept { key, .. } if key == b"b");
    assert_eq!(stage.ask(1, "b", write("old")), Some(Answer::Done));
    let copy = stage.seen.iter().find(is_copy).cloned().expect("node 2 was sent the value");
    assert_eq!(stage.ask(1, "b", write("new")), Some(Answer::Done));
    stage.reach(&[&[1, 3]]);
    assert!(stage.forget(2, "b"));
    stage.post(copy);
    assert!(!stage.holds(2, "b"));
    stage.reach(&[&[1, 2, 3]]);
    stage.pass(300);
    assert_eq!(stage.held(2, "b"), stage.held(1, "b"));
}

#[test]
fn a_member_that_missed_that_a_key_was_dropped_drops_it_later() {
    let mut stage = filled(Rules::default());
    stage.passes = |letter| letter.to != 2 || !matches!(letter.message, Message::Purge { .. });
    assert_eq!(stage.ask(1, "b", Operation::Delete), Some(Answer::Done));
    stage.pass(2000);
    stage.passes = |_| true;
    stage.pass(4000);
    assert!([1, 2, 3].into_iter().all(|node| !stage.holds(node, "b")));
}

#[test]
fn a_slot_that_never_rests_has_its_members_list_what_they_hold() {
    let mut stage = filled(Rules::default());
    assert!(stage.forget(2, "b"));
    // Whenever a heartbeat is answered, something has moved.
    for number in 0..400 {
        stage.send(1, "a", write("again"), 1000 + number);
        stage.pass(10);
    }
    assert!(stage.seen.iter().any(lists) && stage.holds(2, "b"));
}

#[test]
fn what_an_earlier_leader_did_not_end_is_written_over() {
    let mut stage = filled(Rules::default());
    // Node 1 writes to its own disk only; 2 and 3 go on without it, and without a write to the key.
    stage.reach(&[]);
    assert_eq!(stage.ask(1, "b", write("in one place")), None);
    stage.reach(&[&[2, 3]]);
    assert!(stage.elect(2));
    stage.pass(300);
    let before = stage.held(2, "b");
    assert!(stage.held(1, "b") < before, "what was recovered was written again");
    stage.reach(&[&[1, 2, 3]]);
    stage.pass(1000);
    assert_eq!(stage.held(1, "b"), stage.held(2, "b"));
    assert_eq!(stage.ask(2, "b", Operation::Get), Some(Answer::Value(Some(b"b".to_vec()))));
}

#[test]
fn what_is_lost_is_told_by_the_log_alone() {
    let mut stage = filled(Rules::default());
    let before = stage.appended(2);
    assert!(stage.forget(2, "b"));
    assert!(matches!(stage.last_entry(2), Some(Entry::Lost { .. })) && stage.appended(2) == before + 1);
}
