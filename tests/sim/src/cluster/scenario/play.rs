//! What each line of a scenario does.

use std::collections::BTreeMap;

use specter_dht::kv::{Answer, Fence, Key, Operation};
use specter_dht::{Failure, Freshness, Input, node};

use super::{Action, Request, Scenario, Step, Stop, Who, micros};
use crate::cluster::Swarm;
use crate::cluster::client::Kind;
use crate::cluster::ending::Phase;
use crate::cluster::machine::{Duty, Name};
use crate::cluster::nemesis::{Fault, Whom};
use crate::cluster::world::{Event, World};
use crate::{Outcome, Violation};

/// The seed of every scenario: nothing in it is to be a matter of luck.
const SEED: u64 = 1;

/// How many keys are filled or read at a time.
const AT_A_TIME: u64 = 64;

/// How far the clock goes on between two looks.
const STEP_MICROS: u64 = 10_000;

/// A scenario that is being played.
pub(super) struct Play {
    pub(super) world: World,
    /// The requests that were begun and not ended, by name.
    open: BTreeMap<String, u64>,
    /// The tokens of leases, by key and owner.
    tokens: BTreeMap<(String, String), u64>,
}

pub(super) fn play(scenario: &Scenario, keeps_identity: bool, tells: bool) -> Outcome {
    let setup = &scenario.setup;
    let mut swarm = Swarm::quiet(SEED, setup.nodes, setup.terms);
    if setup.patient {
        swarm.settings = node::Settings::default();
    }
    let seats = (setup.seats, setup.seats);
    let mut world = World::new(Swarm { spares: setup.spares, seats, keeps_identity, ..swarm });
    world.tells = tells;
    world.phase = Phase::Chaos { until: u64::MAX };
    let mut play = Play { world, open: BTreeMap::new(), tokens: BTreeMap::new() };
    let ended = play.all(&scenario.steps);
    let mut world = play.world;
    if let Err(violation) = ended.and_then(|()| world.play_on()) {
        world.describe_violation(violation);
    }
    world.outcome.micros = world.time();
    world.outcome
}

impl Play {
    fn all(&mut self, steps: &[Step]) -> Result<(), Violation> {
        self.world.begin_all();
        self.world.run_until(STEP_MICROS)?;
        for step in steps {
            let happened = self.wait_for(step).and_then(|()| self.happen(&step.action));
            match happened {
                Ok(()) => {}
                Err(Stop::Broken(violation)) => return Err(violation),
                Err(Stop::Untrue(text)) => {
                    return Err(Violation::Scenario(format!("line {}: {text}", step.line)));
                }
            }
        }
        Ok(())
    }

    fn wait_for(&mut self, step: &Step) -> Result<(), Stop> {
        let Some(at) = step.at.map(micros) else { return Ok(()) };
        if at < self.world.time() {
            let late = self.world.time() - at;
            return Err(Stop::Untrue(format!("its time was over {} ms ago", late / 1000)));
        }
        Ok(self.world.run_until(at)?)
    }

    fn happen(&mut self, action: &Action) -> Result<(), Stop> {
        match action {
            Action::Wait(span) => self.world.run_until(self.world.time() + micros(*span))?,
            Action::Crash(who) => {
                for name in self.machines(who)? {
                    self.world.crash_down(name);
                }
            }
            Action::Restart(who) => {
                for name in self.machines(who)? {
                    if self.world.machines.get(&name).is_some_and(|machine| machine.duty == Duty::Down) {
                        self.world.start(name)?;
                    }
                }
            }
            Action::Wipe(who) => {
                for name in self.machines(who)? {
                    self.world.crash_down(name);
                    self.world.lose_disk(name);
                    self.world.start(name)?;
                }
            }
            Action::Force(who) => {
                for name in self.machines(who)? {
                    self.world.input(name, Input::Force)?;
                }
            }
            Action::Pause(who, span) => self.faults(who, |whom| Fault::Pause { whom, micros: micros(*span) })?,
            Action::Leap(who, span) => self.faults(who, |whom| Fault::Leap { whom, micros: micros(*span) })?,
            Action::Stall(who, span) => self.faults(who, |whom| Fault::Stall { whom, micros: micros(*span) })?,
            Action::Full(who, full) => {
                for name in self.machines(who)? {
                    self.world.set_full(name, *full)?;
                }
            }
            Action::Isolate(who, inward, outward) => {
                self.faults(who, |whom| Fault::Isolate { whom, inward: *inward, outward: *outward })?;
            }
            Action::Partition(sides) => {
                let sides = sides.iter().map(|who| self.machines(who)).collect::<Result<Vec<_>, _>>()?;
                self.world.partition(&sides);
            }
            Action::Heal => self.world.befall(Fault::Heal)?,
            Action::Loss(percent) => self.world.befall(Fault::Weather { loss: percent * 10, times_slower: 1 })?,
            Action::Join { who, via, afresh } => {
                let via = via.as_ref().map(|via| self.one(via)).transpose()?;
                for name in self.machines(who)? {
                    self.world.join(name, via, *afresh)?;
                }
            }
            Action::Leave(who, within) => {
                for name in self.machines(who)? {
                    self.world.leave(name, within.map(micros))?;
                }
            }
            Action::Ask { request, at, patience, expected } => {
                let client = self.ask(request, at, micros(*patience))?;
                self.answer(client, request, expected)?;
            }
            Action::Begin { name, request, at, patience } => {
                let client = self.ask(request, at, micros(*patience))?;
                self.open.insert(name.clone(), client);
            }
            Action::End { name, expected } => {
                let Some(client) = self.open.remove(name) else {
                    return Err(Stop::Untrue(format!("no request \"{name}\" was begun")));
                };
                self.answer(client, &Request::Get(String::new()), expected)?;
            }
            Action::Fill(count, at) => {
                self.many(*count, at, |index| (key(&format!("fill{index}")), put(&index.to_string()), Answer::Done))?
            }
            Action::Read(count, at) => self.many(*count, at, |index| {
                let value = Answer::Value(Some(index.to_string().into_bytes()));
                (key(&format!("fill{index}")), Operation::Get, value)
            })?,
            Action::Miss(count, at) => {
                self.many(*count, at, |index| (key(&format!("absent{index}")), Operation::Get, Answer::Value(None)))?
            }
            Action::Clients(count) => {
                for _ in 0..*count {
                    let id = self.world.add_client(Kind::Busy);
                    self.world.queue.push(0, Event::Begin { client: id });
                }
            }
            Action::Measure => {
                self.world.waits.take(self.world.time());
            }
            Action::Expect(truth, within) => self.expect(truth, micros(*within))?,
        }
        Ok(())
    }

    fn faults(&mut self, who: &Who, fault: impl Fn(Whom) -> Fault) -> Result<(), Stop> {
        for name in self.machines(who)? {
            self.world.befall(fault(Whom::One(name)))?;
        }
        Ok(())
    }

    /// The machines that a word means at this moment.
    pub(super) fn machines(&self, who: &Who) -> Result<Vec<Name>, Stop> {
        let world = &self.world;
        let slot = |name: &String| world.swarm.terms.slot_of(&key(name));
        let leader = |name: &String| {
            world.leader(slot(name)).ok_or_else(|| Stop::Untrue(format!("nobody leads the slot of {name}")))
        };
        let names: Vec<Name> = match who {
            Who::All => world.machines.keys().copied().collect(),
            Who::Named(names) => names.clone(),
            Who::Leader(name) => vec![leader(name)?],
            Who::Members(name) => world.members(slot(name)),
            Who::Followers(name) => {
                let leader = world.leader(slot(name));
                let follows = |name: &Name| {
                    Some(*name) != leader && world.machines.get(name).is_some_and(|machine| machine.is_up())
                };
                world.members(slot(name)).into_iter().filter(follows).collect()
            }
            Who::Others(name) => {
                let members = world.members(slot(name));
                world.up().map(|machine| machine.name).filter(|other| !members.contains(other)).collect()
            }
        };
        match names.iter().find(|name| !world.machines.contains_key(name)) {
            Some(name) => Err(Stop::Untrue(format!("there is no machine {name}"))),
            None => Ok(names),
        }
    }

    pub(super) fn one(&self, who: &Who) -> Result<Name, Stop> {
        let names = self.machines(who)?;
        names.first().copied().ok_or_else(|| Stop::Untrue("there is no such machine".into()))
    }

    /// Asks a node, and says which client did.
    fn ask(&mut self, request: &Request, at: &Who, patience_micros: u64) -> Result<u64, Stop> {
        let name = self.one(at)?;
        let client = self.world.add_client(Kind::Told);
        let asked = self.operation(client, request)?;
        self.world.ask(client, name, asked, patience_micros)?;
        Ok(client)
    }

    fn operation(&self, client: u64, request: &Request) -> Result<(Key, Operation, Freshness), Stop> {
        let token = |lease: &String, owner: &String| {
            let token = self.tokens.get(&(lease.clone(), owner.clone())).copied();
            token.ok_or_else(|| Stop::Untrue(format!("{owner} never had the lease {lease}")))
        };
        let sure = Freshness::Linearizable;
        Ok(match request {
            Request::Get(name) => (key(name), Operation::Get, sure),
            Request::Hint(name) => (key(name), Operation::Get, Freshness::Hint),
            Request::Put(name, value) => (key(name), put(value), sure),
            Request::Delete(name) => (key(name), Operation::Delete, sure),
            Request::Swap(name, expected, new) => {
                let bytes = |text: &String| (text != "nothing").then(|| text.clone().into_bytes());
                (key(name), Operation::CompareAndSwap { expected: bytes(expected), new: bytes(new) }, sure)
            }
            Request::Add(name, child) => (key(name), Operation::Append(child.clone().into_bytes()), sure),
            Request::Remove(name, child) => (key(name), Operation::Remove(child.clone().into_bytes()), sure),
            Request::List(name) => (key(name), Operation::List, sure),
            Request::Acquire(lease, owner, ttl) => {
                let owner = owner.clone().into_bytes();
                (lease_key(lease), Operation::Acquire { owner, nonce: client, ttl: *ttl }, sure)
            }
            Request::Renew(lease, owner) => (lease_key(lease), Operation::Renew { token: token(lease, owner)? }, sure),
            Request::Release(lease, owner) => {
                (lease_key(lease), Operation::Release { token: token(lease, owner)? }, sure)
            }
            Request::Fenced(name, value, lease, owner) => {
                let fence = Some(Fence { lease_key: lease_key(lease), token: token(lease, owner)? });
                (fenced_key(name), Operation::Put { value: value.clone().into_bytes(), fence }, sure)
            }
        })
    }

    /// Waits for the reply to a request, and compares it with what is expected.
    fn answer(&mut self, client: u64, request: &Request, expected: &str) -> Result<(), Stop> {
        let reply = self.reply(client)?;
        if let (Request::Acquire(lease, owner, _), Some(Ok(Answer::Granted(token)))) = (request, &reply) {
            self.tokens.insert((lease.clone(), owner.clone()), *token);
        }
        let got = spelled(reply.as_ref());
        let failed = matches!(got.as_str(), "unavailable" | "unknown" | "silence");
        let fits = got == expected || (expected == "failure" && failed) || (expected == "answer" && !failed);
        if fits { Ok(()) } else { Err(Stop::Untrue(format!("{expected} is expected, and there is {got}"))) }
    }

    fn reply(&mut self, client: u64) -> Result<Option<Result<Answer, Failure>>, Stop> {
        loop {
            let Some(waiting) = self.world.client(client) else { return Ok(None) };
            if waiting.pending.is_none() {
                return Ok(waiting.reply.take());
            }
            self.world.run_until(self.world.time() + STEP_MICROS)?;
        }
    }

    /// Asks for many keys, some at a time.
    fn many(&mut self, count: u64, at: &Who, asked: impl Fn(u64) -> (Key, Operation, Answer)) -> Result<(), Stop> {
        let name = self.one(at)?;
        let clients: Vec<u64> = (0..AT_A_TIME.min(count)).map(|_| self.world.add_client(Kind::Told)).collect();
        for first in (0..count).step_by(clients.len().max(1)) {
            for (client, index) in clients.iter().zip(first..count) {
                let (key, operation, _) = asked(index);
                self.world.ask(*client, name, (key, operation, Freshness::Linearizable), 5_000_000)?;
            }
            for (client, index) in clients.iter().zip(first..count) {
                let (_, _, wanted) = asked(index);
                let got = self.reply(*client)?;
                if got.as_ref().is_none_or(|got| got.as_ref() != Ok(&wanted)) {
                    return Err(Stop::Untrue(format!("key {index}: {wanted:?} is expected, and there is {got:?}")));
                }
            }
        }
        Ok(())
    }
}

/// A reply in one word.
fn spelled(reply: Option<&Result<Answer, Failure>>) -> String {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        None => "silence".into(),
        Some(Err(Failure::Unavailable)) => "unavailable".into(),
        Some(Err(Failure::ReadOnly)) => "readonly".into(),
        Some(Err(Failure::Unknown)) => "unknown".into(),
        Some(Err(Failure::Busy)) => "busy".into(),
        Some(Err(Failure::Invalid)) => "invalid".into(),
        Some(Ok(answer)) => match answer {
            Answer::Done => "done".into(),
            Answer::Value(None) => "nothing".into(),
            Answer::Value(Some(value)) => text(value),
            Answer::Found(true) => "there".into(),
            Answer::Found(false) => "absent".into(),
            Answer::Children(children) if children.is_empty() => "nothing".into(),
            Answer::Children(children) => children.iter().map(text).collect::<Vec<_>>().join(","),
            Answer::Granted(_) => "granted".into(),
            Answer::Conflict => "conflict".into(),
            Answer::Held => "held".into(),
            Answer::Expired => "expired".into(),
            Answer::StaleFence => "stale".into(),
        },
    }
}

fn put(value: &str) -> Operation {
    Operation::Put { value: value.as_bytes().to_vec(), fence: None }
}

/// The histories of keys that begin with this are checked; those of leases depend on time.
pub(super) fn key(name: &str) -> Key {
    format!("r{name}").into_bytes()
}

fn lease_key(name: &str) -> Key {
    format!("l{name}").into_bytes()
}

fn fenced_key(name: &str) -> Key {
    format!("f{name}").into_bytes()
}
