//! What each line of a scenario means.

use std::time::Duration;

use specter_dht::Terms;

use super::words::Words;
use super::{Error, Scenario};
use crate::cluster::machine::Name;

/// The cluster of a scenario: `nodes 5 replicas 3 bits 2 seats 1 spares 2`, its first line. With `patient` at its end the
/// nodes are as patient as real ones, and not five times as fast.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Setup {
    pub(super) nodes: u64,
    pub(super) spares: u64,
    pub(super) seats: u8,
    pub(super) terms: Terms,
    pub(super) patient: bool,
}

/// Machines: `n1`, `n1,n2`, `all`, and those that lead or keep the slot of a key: `leader(k)`, `members(k)`,
/// `followers(k)` (members that run and do not lead), `others(k)` (that run and are no members).
#[derive(Clone, Debug)]
pub(in crate::cluster) enum Who {
    Named(Vec<Name>),
    All,
    Leader(String),
    Members(String),
    Followers(String),
    Others(String),
}

/// What is asked of a key.
#[derive(Clone, Debug)]
pub(in crate::cluster) enum Request {
    Get(String),
    Hint(String),
    Put(String, String),
    Delete(String),
    Swap(String, String, String),
    Add(String, String),
    Remove(String, String),
    List(String),
    /// Takes a lease for somebody.
    Acquire(String, String, Duration),
    Renew(String, String),
    Release(String, String),
    /// Writes a value under the lease of somebody.
    Fenced(String, String, String, String),
}

/// What must be so.
#[derive(Clone, Debug)]
pub(in crate::cluster) enum Truth {
    /// The cluster is one: one ring, every slot led and kept by those that should.
    Converged,
    /// The slot of a key is kept by these.
    Members(String, Who),
    /// The slot of a key is kept by those that should keep it.
    Placed(String),
    /// Somebody leads the slot of a key.
    Led(String),
    /// Machines have left and are gone.
    Away(Who),
    /// Machines run and are no longer about to leave.
    Up(Who),
    /// Machines keep at most so many keys.
    Keys(usize, Who),
    /// No key could not be had for longer than this since the last `measure`.
    Wait(Duration),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(in crate::cluster) enum Action {
    /// `wait 5s`
    Wait(Duration),
    /// `crash n1`: the disk keeps, loses or tears what it had not synced, by chance.
    Crash(Who),
    /// `restart n1`
    Restart(Who),
    /// `wipe n1`: the disk is lost; the machine comes back at once, as a new node.
    Wipe(Who),
    /// `force n1`: an operator says that the other members are gone for good.
    Force(Who),
    /// `pause n1 3s`
    Pause(Who, Duration),
    /// `leap n1 30s`: its clock leaps ahead.
    Leap(Who, Duration),
    /// `stall n1 3s`: its disk syncs nothing.
    Stall(Who, Duration),
    /// `full n1`, `room n1`
    Full(Who, bool),
    /// `isolate n1`, `isolate n1 inward`, `isolate n1 outward`
    Isolate(Who, bool, bool),
    /// `partition n1,n2 | n3`
    Partition(Vec<Who>),
    /// `heal`
    Heal,
    /// `loss 10`: of a hundred packets so many are lost.
    Loss(u64),
    /// `join n4`, `join n4 via n2`, `join n4 afresh`
    Join { who: Who, via: Option<Who>, afresh: bool },
    /// `leave n1`, `leave n1 within 2s`: after that it crashes.
    Leave(Who, Option<Duration>),
    /// `put k v at n1 expect done`, with `within 2s` for how long the node may try.
    Ask { request: Request, at: Who, patience: Duration, expected: String },
    /// `begin a put k v at n1`: goes on without waiting for the reply.
    Begin { name: String, request: Request, at: Who, patience: Duration },
    /// `end a expect done`
    End { name: String, expected: String },
    /// `fill 1000 at n1`: writes so many keys.
    Fill(u64, Who),
    /// `read 1000 at n1`: reads what `fill` wrote.
    Read(u64, Who),
    /// `miss 1000 at n1`: reads so many keys that nobody wrote.
    Miss(u64, Who),
    /// `clients 4`: so many clients ask this and that from now on.
    Clients(u64),
    /// `measure`: forgets how long keys could not be had.
    Measure,
    /// `expect converged within 20s`, `expect members k n1,n2 within 5s`, …
    Expect(Truth, Duration),
}

/// One line.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct Step {
    pub(super) line: usize,
    pub(super) at: Option<Duration>,
    pub(super) action: Action,
}

/// How long a node may try when a line does not say.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn scenario(text: &str) -> Result<Scenario, Error> {
    let mut lines = text.lines().enumerate().map(|(index, text)| Words::new(index + 1, text));
    let mut lines = lines.by_ref().filter_map(|mut words| (!words.is_empty()).then_some(words));
    let first = lines.next().ok_or(Error::Line { line: 1, problem: "the scenario is empty".into() })?;
    let setup = setup(first)?;
    let steps = lines.map(step).collect::<Result<Vec<_>, _>>()?;
    Ok(Scenario { setup, steps })
}

fn setup(mut words: Words<'_>) -> Result<Setup, Error> {
    words.must("nodes")?;
    let nodes = words.number("how many nodes there are")?;
    let mut setup = Setup { nodes, spares: 0, seats: 1, terms: Terms { slot_bits: 2, replicas: 3 }, patient: false };
    while !words.is_empty() {
        match words.next("a word")? {
            "replicas" => setup.terms.replicas = words.number("how many replicas a slot has")?,
            "bits" => setup.terms.slot_bits = words.number("how many bits name a slot")?,
            "seats" => setup.seats = words.number("how many virtual nodes a machine has")?,
            "spares" => setup.spares = words.number("how many more machines there are")?,
            "patient" => setup.patient = true,
            other => {
                return Err(words.wrong(format!("\"{other}\" is none of replicas, bits, seats, spares and patient")));
            }
        }
    }
    let sane = setup.nodes >= 1 && setup.terms.is_sane() && setup.nodes + setup.spares < 1000;
    if sane { Ok(setup) } else { Err(words.wrong("no cluster can be like that")) }
}

fn step(mut words: Words<'_>) -> Result<Step, Error> {
    let line = words.line();
    let at = if words.has("at") { Some(words.span()?) } else { None };
    let action = action(&mut words)?;
    words.end()?;
    Ok(Step { line, at, action })
}

fn action(words: &mut Words<'_>) -> Result<Action, Error> {
    Ok(match words.next("what happens")? {
        "wait" => Action::Wait(words.span()?),
        "crash" => Action::Crash(who(words)?),
        "restart" => Action::Restart(who(words)?),
        "wipe" => Action::Wipe(who(words)?),
        "force" => Action::Force(who(words)?),
        "pause" => Action::Pause(who(words)?, words.span()?),
        "leap" => Action::Leap(who(words)?, words.span()?),
        "stall" => Action::Stall(who(words)?, words.span()?),
        "full" => Action::Full(who(words)?, true),
        "room" => Action::Full(who(words)?, false),
        "isolate" => {
            let who = who(words)?;
            let (inward, outward) = (words.has("inward"), words.has("outward"));
            Action::Isolate(who, inward || !outward, outward || !inward)
        }
        "partition" => {
            let mut sides = vec![who(words)?];
            while words.has("|") {
                sides.push(who(words)?);
            }
            if sides.len() < 2 {
                return Err(words.wrong("a partition has two sides or more: partition n1 | n2,n3"));
            }
            Action::Partition(sides)
        }
        "heal" => Action::Heal,
        "loss" => Action::Loss(words.number("how many of a hundred packets are lost")?),
        "join" => {
            let who_joins = who(words)?;
            let via = if words.has("via") { Some(who(words)?) } else { None };
            Action::Join { who: who_joins, via, afresh: words.has("afresh") }
        }
        "leave" => {
            let who = who(words)?;
            Action::Leave(who, if words.has("within") { Some(words.span()?) } else { None })
        }
        "fill" => {
            let count = words.number("how many keys")?;
            words.must("at")?;
            Action::Fill(count, who(words)?)
        }
        "read" => {
            let count = words.number("how many keys")?;
            words.must("at")?;
            Action::Read(count, who(words)?)
        }
        "miss" => {
            let count = words.number("how many keys")?;
            words.must("at")?;
            Action::Miss(count, who(words)?)
        }
        "clients" => Action::Clients(words.number("how many clients")?),
        "measure" => Action::Measure,
        "begin" => {
            let name = words.next("a name for the request")?.to_owned();
            let verb = words.next("a request")?;
            let (request, at, patience) = asked(verb, words)?;
            Action::Begin { name, request, at, patience }
        }
        "end" => {
            let name = words.next("the name of a request")?.to_owned();
            words.must("expect")?;
            Action::End { name, expected: words.next("what is expected")?.to_owned() }
        }
        "expect" => truth(words)?,
        verb => {
            let (request, at, patience) = asked(verb, words)?;
            words.must("expect")?;
            Action::Ask { request, at, patience, expected: words.next("what is expected")?.to_owned() }
        }
    })
}

fn asked(verb: &str, words: &mut Words<'_>) -> Result<(Request, Who, Duration), Error> {
    let mut word = |wanted: &str| words.next(wanted).map(str::to_owned);
    let request = match verb {
        "get" => Request::Get(word("a key")?),
        "hint" => Request::Hint(word("a key")?),
        "put" => Request::Put(word("a key")?, word("a value")?),
        "delete" => Request::Delete(word("a key")?),
        "swap" => Request::Swap(word("a key")?, word("the expected value")?, word("the new value")?),
        "add" => Request::Add(word("a key")?, word("a child")?),
        "remove" => Request::Remove(word("a key")?, word("a child")?),
        "list" => Request::List(word("a key")?),
        "acquire" => {
            let (key, owner) = (word("a key")?, word("an owner")?);
            Request::Acquire(key, owner, words.span()?)
        }
        "renew" => Request::Renew(word("a key")?, word("an owner")?),
        "release" => Request::Release(word("a key")?, word("an owner")?),
        "fenced" => Request::Fenced(word("a key")?, word("a value")?, word("the key of a lease")?, word("an owner")?),
        other => return Err(words.wrong(format!("\"{other}\" is nothing that can happen"))),
    };
    words.must("at")?;
    let at = who(words)?;
    let patience = if words.has("within") { words.span()? } else { PATIENCE };
    Ok((request, at, patience))
}

fn truth(words: &mut Words<'_>) -> Result<Action, Error> {
    let truth = match words.next("what is expected")? {
        "converged" => Truth::Converged,
        "members" => Truth::Members(words.next("a key")?.to_owned(), who(words)?),
        "placed" => Truth::Placed(words.next("a key")?.to_owned()),
        "led" => Truth::Led(words.next("a key")?.to_owned()),
        "away" => Truth::Away(who(words)?),
        "up" => Truth::Up(who(words)?),
        "keys" => {
            words.must("below")?;
            let most = words.number("how many keys")?;
            words.must("at")?;
            Truth::Keys(most, who(words)?)
        }
        "waits" => {
            words.must("below")?;
            Truth::Wait(words.span()?)
        }
        other => {
            return Err(
                words.wrong(format!("\"{other}\" is none of converged, members, placed, led, away, up, keys, waits"))
            );
        }
    };
    let within = if words.has("within") { words.span()? } else { Duration::ZERO };
    Ok(Action::Expect(truth, within))
}

fn who(words: &mut Words<'_>) -> Result<Who, Error> {
    let word = words.next("a machine")?;
    if word == "all" {
        return Ok(Who::All);
    }
    if let Some((role, key)) = word.strip_suffix(')').and_then(|word| word.split_once('(')) {
        let key = key.to_owned();
        return match role {
            "leader" => Ok(Who::Leader(key)),
            "members" => Ok(Who::Members(key)),
            "followers" => Ok(Who::Followers(key)),
            "others" => Ok(Who::Others(key)),
            other => Err(words.wrong(format!("\"{other}\" is none of leader, members, followers and others"))),
        };
    }
    let name = |text: &str| text.strip_prefix('n').and_then(|number| number.parse().ok()).map(Name);
    let wrong = || words.wrong(format!("\"{word}\" is no machine; write n1, n1,n2, all or leader(key)"));
    word.split(',').map(|text| name(text).ok_or_else(wrong)).collect::<Result<_, _>>().map(Who::Named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        scenario(text).expect_err("the scenario makes no sense").to_string()
    }

    #[test]
    fn a_scenario_is_read_line_by_line() {
        let read =
            scenario("nodes 3 replicas 3 # a comment\n\nat 10s crash leader(k)\nput k v at n1 within 2s expect done\n");
        let read = read.expect("it makes sense");
        assert_eq!((read.setup.nodes, read.steps.len(), read.steps[0].line), (3, 2, 3));
        assert_eq!(read.steps[0].at, Some(Duration::from_secs(10)));
        assert!(matches!(&read.steps[0].action, Action::Crash(Who::Leader(key)) if key == "k"));
        assert!(matches!(&read.steps[1].action, Action::Ask { patience, .. } if *patience == Duration::from_secs(2)));
    }

    #[test]
    fn an_error_names_the_line_and_what_was_wanted() {
        assert_eq!(problem("nodes 3\nat 10 heal"), "line 2: \"10\" is no span of time; write it like 250ms, 10s or 2m");
        assert_eq!(problem("nodes 3\ncrush n1"), "line 2: \"crush\" is nothing that can happen");
        assert_eq!(problem("nodes 3\ncrash"), "line 2: the line ends where a machine is wanted");
        assert_eq!(problem("nodes 3\nheal n1"), "line 2: nothing is wanted after this, but there is \"n1\"");
        assert_eq!(problem("nodes 3\nput k v at n1 done"), "line 2: \"expect\" is wanted, not \"done\"");
        assert!(problem("nodes 3\npartition n1").contains("two sides"));
        assert!(problem("nodes 3 replicas 0").contains("no cluster"));
        assert!(problem("").contains("empty"));
    }
}
