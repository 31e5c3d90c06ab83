//! What a request costs in messages and writes to the log.

use specter_dht::kv::{Answer, Message, Operation, Rules};

use crate::stage::{Stage, write};

/// A leader of three that has nothing else to do, and what a request makes the nodes say and write from then on.
fn cost(operation: Operation) -> (Vec<&'static str>, Vec<usize>, Option<Answer>) {
    let mut stage = Stage::new(Rules::default(), 3, 3);
    assert!(stage.elect(1));
    stage.put(1, "before");
    stage.seen.clear();
    let written: Vec<usize> = (1..=3).map(|id| stage.appended(id)).collect();
    stage.send(1, "k", operation, 1000);
    stage.deliver();
    let said = stage.seen.iter().map(|letter| match letter.message {
        Message::Accept { .. } => "Accept",
        Message::Accepted { .. } => "Accepted",
        Message::Confirm { .. } => "Confirm",
        Message::Confirmed { .. } => "Confirmed",
        _ => "something else",
    });
    let mut said: Vec<&str> = said.collect();
    said.sort_unstable();
    let written = (1..=3).zip(written).map(|(id, before)| stage.appended(id) - before).collect();
    (said, written, stage.reply(1000).and_then(|reply| reply.clone().ok()))
}

#[test]
fn a_write_costs_each_other_member_a_message_and_an_answer_and_everybody_one_write_to_the_log() {
    let (said, written, answer) = cost(write("after"));
    assert_eq!(answer, Some(Answer::Done));
    assert_eq!(said, ["Accept", "Accept", "Accepted", "Accepted"]);
    assert_eq!(written, [1, 1, 1]);
}

#[test]
fn a_read_costs_each_other_member_a_message_and_an_answer_and_nobody_a_write_to_the_log() {
    let (said, written, answer) = cost(Operation::Get);
    assert_eq!(answer, Some(Answer::Value(Some(b"before".to_vec()))));
    assert_eq!(said, ["Confirm", "Confirm", "Confirmed", "Confirmed"]);
    assert_eq!(written, [0, 0, 0]);
}

/// A member that has missed the end of a change of members learns it with the first write, not with a later heartbeat.
#[test]
fn a_member_with_an_older_configuration_gets_it_and_the_write_again_at_once() {
    let mut stage = Stage::new(Rules::default(), 3, 4);
    assert!(stage.elect(1));
    stage.passes = |letter| letter.to != 2 || matches!(letter.message, Message::Accept { .. });
    stage.want(&[1, 2, 4]);
    stage.pass(500);
    assert!(stage.config(1).is_stable() && stage.config(2).version < stage.config(1).version);
    stage.passes = |_| true;
    stage.send(1, "k", write("new"), 1000);
    stage.deliver();
    assert_eq!(stage.config(2).version, stage.config(1).version);
    assert!(stage.holds(2, "k"));
}
