//! Who serves which name, who looks for it, and what must be found.

use std::collections::BTreeSet;
use std::time::Duration;

use specter_dht::kv::{Answer, Operation, RequestId};
use specter_dht::{Ask, Failure, Freshness, Input};

use super::world::{Event, World};
use super::{Figures, LOOK_UP_SECONDS, SERVERS, UNREACHABLE_SECONDS, child_of, key_of, node_of};

const SECOND: u64 = 1_000_000;

/// How long one call to the store may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The wait until a call that failed is tried again.
const AGAIN_MICROS: u64 = 200_000;

/// Names that are told in each tenth of a second at first, and how long all of them may take.
const TOLD_AT_ONCE: usize = 500;
const TELLING_SECONDS: u64 = 600;

/// Names that are looked up in each tenth of a second when all are, at the end.
const SWEPT_AT_ONCE: usize = 500;

/// A node that serves a name, and whether the store has said that it knows.
#[derive(Clone, Copy, Debug)]
struct Server {
    node: usize,
    is_told: bool,
}

/// Somebody looks for a name.
#[derive(Clone, Debug)]
struct Look {
    name: usize,
    by: usize,
    since: u64,
    freshness: Freshness,
    /// Who served the name when it began, as the store had said.
    told: Vec<usize>,
    is_over: bool,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Announce { node: usize, name: usize },
    Withdraw { node: usize, name: usize },
    Remove,
    Look { look: usize },
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// Who serves each.
    servers: Vec<Vec<Server>>,
    looks: Vec<Look>,
    /// How long each look-up took.
    took: Vec<u64>,
    /// Whether look-ups count for the figures.
    counts: bool,
    /// How many children other than those of living servers the last sweep saw.
    leftovers: u64,
    failed: Option<String>,
}

impl Names {
    pub(super) fn measure(&mut self, figures: &mut Figures) {
        self.took.sort_unstable();
        let at = |part: usize| self.took.get(self.took.len() * part / 100).copied().unwrap_or(0);
        figures.usual_micros = (at(50), at(99));
        figures.slowest_micros = self.took.last().copied().unwrap_or(0);
    }
}

impl World {
    /// Each name gets its servers, which tell the store.
    pub(super) fn tell_all(&mut self) -> Result<(), String> {
        let begun = self.seconds();
        self.names.servers = vec![Vec::new(); self.name_count()];
        for name in 0..self.name_count() {
            for _ in 0..SERVERS.min(self.plan.nodes) {
                self.move_clients(name);
            }
            if name % TOLD_AT_ONCE == 0 {
                self.run(SECOND / 10)?;
            }
        }
        while self.names.servers.iter().flatten().any(|server| !server.is_told) {
            if self.seconds() > begun + TELLING_SECONDS {
                return Err(format!("not all routes could be told in {TELLING_SECONDS} s"));
            }
            self.run(SECOND)?;
        }
        self.figures.told_seconds = self.seconds() - begun;
        self.names.counts = true;
        Ok(())
    }

    /// Nobody comes or goes any more: the routes of the dead are removed, every name is found by whom serves it, and the
    /// cluster is whole.
    pub(super) fn rest(&mut self) -> Result<(), String> {
        self.run((LOOK_UP_SECONDS + 60) * SECOND)?;
        self.names.counts = false;
        let end = self.queue.time() + UNREACHABLE_SECONDS * SECOND;
        while self.queue.time() < end {
            self.run(SECOND)?;
        }
        // Twice: the first time, what is dead is found and removed.
        for _ in 0..2 {
            self.names.leftovers = 0;
            for name in 0..self.name_count() {
                let by = self.random_node();
                self.look_for(name, by, Freshness::Linearizable);
                if name % SWEPT_AT_ONCE == 0 {
                    self.run(SECOND / 10)?;
                }
            }
            self.run((LOOK_UP_SECONDS + 1) * SECOND)?;
        }
        if self.names.leftovers > 0 {
            return Err(format!("{} routes lead to nodes that do not serve their names", self.names.leftovers));
        }
        let poor =
            self.names.servers.iter().filter(|servers| servers.iter().filter(|server| server.is_told).count() < 2);
        let poor = poor.count();
        if poor > 0 && self.plan.nodes >= SERVERS {
            return Err(format!("{poor} names have not the routes that they should"));
        }
        self.lack().map_or(Ok(()), |lack| Err(format!("the cluster is not whole again: {lack}")))
    }

    /// A client finds another node for a name.
    pub(super) fn move_clients(&mut self, name: usize) {
        let node = loop {
            let node = self.random_node();
            if self.names.servers[name].iter().all(|server| server.node != node) {
                break node;
            }
        };
        self.names.servers[name].push(Server { node, is_told: false });
        self.announce(node, name);
    }

    /// The links to a node end: each name that it served goes elsewhere, after a while.
    pub(super) fn let_clients_go(&mut self, node: usize, (soon, late): (u64, u64)) {
        for name in 0..self.names.servers.len() {
            let count = self.names.servers[name].len();
            // A node that goes serves until it has withdrawn what it told.
            if !self.machines[node].is_leaving {
                self.names.servers[name].retain(|server| server.node != node);
            } else if !self.names.servers[name].iter().any(|server| server.node == node) {
                continue;
            }
            if self.machines[node].is_leaving || self.names.servers[name].len() < count {
                let after = self.random.between(soon, late);
                self.queue.push(after, Event::Move { name });
            }
        }
    }

    pub(super) fn announce(&mut self, node: usize, name: usize) {
        let serves = self.names.servers[name].iter().any(|server| server.node == node);
        if serves && self.is_open(node) {
            let append = Operation::Append(child_of(node));
            self.request(node, name, append, Freshness::Linearizable, Purpose::Announce { node, name });
        }
    }

    /// A node that goes removes its children, when its clients have moved.
    pub(super) fn withdraw(&mut self, node: usize) {
        let names = 0..self.names.servers.len();
        let served = |name: &usize| self.names.servers[*name].iter().any(|server| server.node == node);
        let served: Vec<usize> = names.filter(served).collect();
        for name in served {
            self.names.servers[name].retain(|server| server.node != node);
            self.withdraw_one(node, name);
        }
        self.go_when_withdrawn(node);
    }

    /// Who looked through a node that is gone looks through another one.
    pub(super) fn look_elsewhere(&mut self, node: usize) {
        let looks = self.names.looks.iter().enumerate();
        for (look, _) in looks.filter(|(_, look)| !look.is_over && look.by == node) {
            self.queue.push(AGAIN_MICROS, Event::Look { look });
        }
    }

    pub(super) fn withdraw_one(&mut self, node: usize, name: usize) {
        let remove = Operation::Remove(child_of(node));
        self.request(node, name, remove, Freshness::Linearizable, Purpose::Withdraw { node, name });
    }

    /// Hands over what a node keeps, once none of its routes is left.
    fn go_when_withdrawn(&mut self, node: usize) {
        let is_last = |purpose: &Purpose| !matches!(purpose, Purpose::Withdraw { node: other, .. } if *other == node);
        if self.machines[node].is_leaving && self.requests.values().all(is_last) {
            self.input(node, Input::Leave);
        }
    }

    pub(super) fn look_up_any(&mut self) {
        let by = self.random_node();
        let name = usize::try_from(self.random.below(self.names.servers.len() as u64)).unwrap_or(0);
        if name < self.names.servers.len() {
            self.look_for(name, by, Freshness::Hint);
        }
    }

    fn look_for(&mut self, name: usize, by: usize, freshness: Freshness) {
        let told = self.names.servers[name].iter().filter(|server| server.is_told).map(|server| server.node).collect();
        let look = Look { name, by, since: self.queue.time(), freshness, told, is_over: false };
        let place = self.names.looks.len();
        self.names.looks.push(look);
        self.figures.look_ups += u64::from(self.names.counts);
        self.queue.push(0, Event::Look { look: place });
    }

    /// Asks the store for a name, for the first time or again.
    pub(super) fn look(&mut self, place: usize) -> Result<(), String> {
        if let Some(text) = self.names.failed.take() {
            return Err(text);
        }
        let Look { name, by, since, freshness, is_over, .. } = self.names.looks[place];
        if is_over {
            return Ok(());
        }
        if self.queue.time() > since + LOOK_UP_SECONDS * SECOND {
            let seconds = self.seconds();
            return Err(format!("at {seconds} s node {by} has not found name {name} for {LOOK_UP_SECONDS} s"));
        }
        if !self.is_open(by) {
            self.names.looks[place].by = self.random_node();
        }
        let by = self.names.looks[place].by;
        self.request(by, name, Operation::List, freshness, Purpose::Look { look: place });
        Ok(())
    }

    fn request(&mut self, node: usize, name: usize, operation: Operation, freshness: Freshness, purpose: Purpose) {
        self.counted += 1;
        self.requests.insert(self.counted, purpose);
        let ask = Ask { key: key_of(name), operation, freshness, patience: PATIENCE };
        self.input(node, Input::Request { id: RequestId(self.counted), ask });
    }

    pub(super) fn answered(&mut self, purpose: Purpose, answer: Result<Answer, Failure>) {
        match (purpose, answer) {
            (Purpose::Announce { node, name }, Ok(_)) => {
                let told = self.names.servers[name].iter_mut().find(|server| server.node == node);
                match told {
                    Some(server) => server.is_told = true,
                    // It has been told to go meanwhile.
                    None => self.withdraw_one(node, name),
                }
            }
            (Purpose::Announce { node, name }, Err(_)) => self.queue.push(AGAIN_MICROS, Event::Announce { node, name }),
            (Purpose::Withdraw { node, .. }, Ok(_)) => self.go_when_withdrawn(node),
            (Purpose::Withdraw { node, name }, Err(_)) => self.queue.push(AGAIN_MICROS, Event::Withdraw { node, name }),
            // Whoever finds it next removes it.
            (Purpose::Remove, _) => {}
            (Purpose::Look { look }, Ok(Answer::Children(children))) => self.found(look, &children),
            (Purpose::Look { look }, _) => {
                self.figures.again += u64::from(self.names.counts);
                self.queue.push(AGAIN_MICROS, Event::Look { look });
            }
        }
    }

    /// A look-up has an answer: some node in it must live and serve the name.
    fn found(&mut self, place: usize, children: &[Vec<u8>]) {
        let Look { name, by, since, freshness, told, is_over } = self.names.looks[place].clone();
        if is_over {
            return;
        }
        let time = self.queue.time();
        let nodes: Vec<usize> = children.iter().filter_map(|child| node_of(child)).collect();
        let serving: BTreeSet<usize> = self.names.servers[name].iter().map(|server| server.node).collect();
        let (good, bad): (Vec<usize>, Vec<usize>) = nodes.into_iter().partition(|node| serving.contains(node));
        self.names.leftovers += bad.len() as u64;
        if self.names.counts {
            self.figures.in_vain += bad.len() as u64;
        }
        for node in bad {
            let gone_at = self.machines[node].gone_at;
            if time.saturating_sub(gone_at) >= UNREACHABLE_SECONDS * SECOND {
                self.figures.removed += 1;
                let remove = Operation::Remove(child_of(node));
                self.request(by, name, remove, Freshness::Linearizable, Purpose::Remove);
            }
        }
        // Whom the store knew of when it was asked, and who is still there, must be found; if there is nobody, nobody is missed.
        let nobody_is_missed = !told.iter().any(|node| serving.contains(node));
        if !good.is_empty() || (nobody_is_missed && freshness == Freshness::Linearizable) {
            if self.names.counts {
                self.names.took.push(time - since);
            }
            let look = &mut self.names.looks[place];
            (look.is_over, look.told) = (true, Vec::new());
            return;
        }
        if freshness == Freshness::Linearizable {
            self.names.failed =
                Some(format!("a majority does not know of a route of name {name} that it acknowledged"));
            self.queue.push(0, Event::Look { look: place });
            return;
        }
        self.figures.confirmed += u64::from(self.names.counts);
        self.names.looks[place].freshness = Freshness::Linearizable;
        self.queue.push(0, Event::Look { look: place });
    }
}
