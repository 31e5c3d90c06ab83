//! How a candidate reads what others hold, and what may happen meanwhile.

use specter_dht::kv::{Answer, Message, Operation, Rule, Rules};

use crate::stage::{Letter, Stage, write};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn is_part(letter: &Letter) -> bool {
    matches!(letter.message, Message::Held { .. })
}

/// Everything but the parts after the second one of node 2.
fn stops_midway(letter: &Letter) -> bool {
    letter.from != 2 || !matches!(&letter.message, Message::Held { after: Some(key), .. } if key >= &b"b".to_vec())
}

/// A slot of so many founders in which node 3 holds nothing of what was written.
fn unequal(rules: Rules, founders: u64) -> Stage {
    let mut stage = Stage::new(rules, founders, founders);
    assert!(stage.elect(1));
    stage.passes = |letter| letter.to != 3 || !matches!(letter.message, Message::Accept { .. });
    for key in KEYS {
        assert_eq!(stage.ask(1, key, write(key)), Some(Answer::Done));
    }
    stage.seen.clear();
    stage
}

/// Lets node 3 become a candidate that has two of four parts.
fn read_halfway(stage: &mut Stage) {
    stage.passes = stops_midway;
    stage.wake(&[3]);
    for _ in 0..200 {
        stage.pass(10);
        if stage.seen.iter().filter(|letter| is_part(letter)).count() >= 2 {
            return;
        }
    }
    panic!("node 3 does not begin to read");
}

/// What node 3 reads of every key that it does not refuse to read.
fn finds_all(stage: &mut Stage) -> bool {
    let found = |answer: Option<Answer>, key: &str| {
        answer.is_none_or(|answer| answer == Answer::Value(Some(key.as_bytes().to_vec())))
    };
    KEYS.into_iter().all(|key| found(stage.ask(3, key, Operation::Get), key))
}

#[test]
fn a_candidate_reads_all_that_it_lacks_before_it_leads() {
    crate::rules::decides(Rule::ReadReports, |rules| {
        let mut stage = unequal(rules, 3);
        stage.passes = |_| true;
        stage.reach(&[&[2, 3]]);
        assert!(stage.elect(3));
        finds_all(&mut stage)
    });
}

#[test]
fn a_candidate_that_holds_the_same_reads_nothing() {
    let mut stage = Stage::new(Rules::default(), 3, 3);
    assert!(stage.elect(1));
    for key in KEYS {
        assert_eq!(stage.ask(1, key, write(key)), Some(Answer::Done));
    }
    stage.seen.clear();
    assert!(stage.elect(3));
    assert!(!stage.seen.iter().any(is_part));
    assert!(finds_all(&mut stage));
}

#[test]
fn what_is_held_comes_in_bounded_parts_and_each_part_once() {
    let mut stage = unequal(Rules::default(), 3);
    stage.reach(&[&[2, 3]]);
    assert!(stage.elect(3));
    let part = |letter: &Letter| match &letter.message {
        Message::Held { after, registers, more, .. } => Some((after.is_some(), registers.len(), *more)),
        _ => None,
    };
    let parts: Vec<_> = stage.seen.iter().filter_map(part).collect();
    assert_eq!(parts, [(false, 1, true), (true, 1, true), (true, 1, true), (true, 1, false)]);
}

#[test]
fn a_part_that_is_lost_is_asked_for_again() {
    let mut stage = unequal(Rules::default(), 3);
    stage.reach(&[&[2, 3]]);
    read_halfway(&mut stage);
    assert!(!stage.leads(3), "it has read half of it");
    stage.passes = |_| true;
    stage.pass(500);
    assert!(stage.leads(3), "it goes on where it was");
    assert!(finds_all(&mut stage));
}

#[test]
fn a_part_that_comes_twice_changes_nothing() {
    let mut stage = unequal(Rules::default(), 3);
    stage.reach(&[&[2, 3]]);
    read_halfway(&mut stage);
    let parts: Vec<Letter> = stage.seen.iter().filter(|letter| is_part(letter)).cloned().collect();
    parts.iter().chain(&parts).for_each(|letter| stage.post(letter.clone()));
    stage.passes = |_| true;
    stage.pass(500);
    assert!(stage.leads(3));
    assert!(finds_all(&mut stage));
}

#[test]
fn a_member_that_restarts_meanwhile_gives_the_rest_all_the_same() {
    let mut stage = unequal(Rules::default(), 3);
    stage.reach(&[&[2, 3]]);
    read_halfway(&mut stage);
    stage.restart(2);
    stage.passes = |_| true;
    stage.pass(500);
    assert!(stage.leads(3));
    assert!(finds_all(&mut stage));
}

#[test]
fn a_member_that_promised_another_meanwhile_gives_nothing_more() {
    let mut stage = unequal(Rules::default(), 3);
    stage.reach(&[&[2, 3]]);
    read_halfway(&mut stage);
    stage.passes = |letter| letter.from != 2 || !is_part(letter);
    stage.reach(&[&[1, 2]]);
    stage.wake(&[1]);
    for _ in 0..100 {
        stage.pass(50);
    }
    assert_eq!(stage.ask(1, "e", write("e")), Some(Answer::Done));
    // Nothing was said to node 3, which still hopes to get the rest.
    let parts = stage.seen.iter().filter(|letter| is_part(letter)).count();
    stage.passes = |letter| letter.from != 2 || is_part(letter);
    stage.reach(&[&[2, 3]]);
    stage.wake(&[3]);
    stage.pass(1000);
    assert!(!stage.leads(3));
    assert_eq!(stage.seen.iter().filter(|letter| is_part(letter)).count(), parts);
}

/// Of five nodes, 3 has promises of 2 and 4 and is half done with reading; then 1 leads with 4 and 5, and goes on
/// without 2 and 3. Only these letters come to 2 and 3.
fn replaced_meanwhile(passes: fn(&Letter) -> bool) -> Stage {
    let mut stage = unequal(Rules::default(), 5);
    stage.reach(&[&[2, 3, 4]]);
    read_halfway(&mut stage);
    stage.passes = passes;
    stage.reach(&[&[1, 2, 3, 4, 5]]);
    stage.wake(&[1]);
    for _ in 0..100 {
        stage.pass(50);
    }
    assert!(stage.leads(1));
    stage.want(&[1, 4, 5]);
    stage.pass(1000);
    assert!(stage.leads(1) && stage.config(1).is_stable() && stage.config(1).nodes().len() == 3);
    stage
}

#[test]
fn a_member_that_is_out_meanwhile_ends_the_candidacy() {
    let mut stage = replaced_meanwhile(|letter| match letter.to {
        2 => matches!(letter.message, Message::Learn { .. }),
        3 => false,
        _ => true,
    });
    assert!(!stage.holds(2, "a"), "node 2 knows that it is out");
    goes_on(&mut stage);
}

#[test]
fn a_candidate_that_learns_meanwhile_that_it_is_out_does_not_lead() {
    let mut stage = replaced_meanwhile(|letter| match letter.to {
        3 => matches!(letter.message, Message::Learn { .. }),
        2 => false,
        _ => true,
    });
    assert!(!stage.config(3).contains(specter_dht::NodeId(3)), "node 3 knows that it is out");
    goes_on(&mut stage);
}

/// Node 3 asks node 2 for the next part: whatever comes, it must not lead with it.
fn goes_on(stage: &mut Stage) {
    let asks = |letter: &&Letter| letter.to == 2 && matches!(letter.message, Message::Fetch { .. });
    let last = stage.seen.iter().rev().find(asks).cloned().expect("node 3 has begun to read");
    stage.seen.clear();
    stage.passes = |_| true;
    stage.reach(&[&[2, 3]]);
    stage.post(last);
    stage.deliver();
    assert!(stage.seen.iter().any(is_part), "node 2 answers");
    let begins = |letter: &Letter| letter.from == 3 && matches!(letter.message, Message::AcceptConfig { .. });
    assert!(!stage.seen.iter().any(begins), "node 3 does not take the lead");
}
