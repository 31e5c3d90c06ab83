//! The control stream of a link as a state machine. PURE: replies go in, actions come out. Driven by `tunnel`.
//!
//! ```text
//! Greeting → Greeted → (Proving → Registering → Saving)? → (Listing → Claiming → Saving)? → Serving → Leaving
//! ```
//! One link of a client leads: only it registers, renews and asks for names. The others publish what has a name.
//! Whatever a node gives is saved before the next step builds on it, so a crash never leaves a name without an owner.
//! After every input the driver drains [`Session::poll`].

use crate::config::Tunnel;
use specter_wire::{
    error::ErrorCode,
    id::NodeId,
    limits::{BATCH, WORK_BITS_MAX},
    link::{Neighbour, NodeFrame, Reply},
    name::Hostname,
};
use std::{collections::VecDeque, sync::Arc};

mod message;
mod naming;
#[cfg(test)]
mod tests;

pub(crate) use message::{AGENT, Message};

/// One link's control stream.
#[derive(Debug)]
pub(crate) struct Session {
    instance: u64,
    leads: bool,
    renew_due: bool,
    /// One copy for all links.
    tunnels: Arc<Vec<Tunnel>>,
    /// How far each of them is here.
    stages: Vec<Stage>,
    state: State,
    gateway: Option<Gateway>,
    last_id: u32,
    /// Requests under way, in the order in which their answers come.
    pending: VecDeque<(u32, Pending)>,
    actions: VecDeque<Action>,
}

/// What the driver is to do.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    /// A node answered. Call [`Session::serve`] to go on, or end the link.
    Greeted(NodeId),
    /// Encode under this number with [`Session::encode`], and send.
    Send(u32, Message),
    /// Find a proof of work and sign, then call [`Session::proven`].
    Prove { bits: u8 },
    /// Store a certificate, then call [`Session::saved`].
    SaveCertificate(String),
    /// Store hostnames, then call [`Session::saved`].
    SaveHostnames(Vec<(usize, Hostname)>),
    /// Tell the user that a tunnel is served.
    Published(usize),
    /// Certificate and names are there, as far as the node gives them.
    Ready,
    /// All that was to be published was answered.
    Settled,
    /// Nothing is published here any more.
    Left,
    /// The node named others.
    Neighbours(Vec<Neighbour>),
    /// Tell the user that a tunnel is not served.
    Refused { tunnel: usize, code: ErrorCode, named: bool },
    /// Tell the log that the certificate was not renewed.
    NotRenewed(ErrorCode),
    /// Call [`Session::retry`] after a while.
    RetryLater,
    /// Open another link; streams on this one may still end.
    Drain,
}

/// How visitors reach the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gateway {
    pub(crate) apex: Hostname,
    pub(crate) port: u16,
}

/// A reply that the protocol does not allow, or a refusal without which nothing goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the node sent an answer that the protocol does not allow here: {0}")]
    Violation(&'static str),
    #[error(
        "the node asks for a proof of work of {0} bits, and more than {WORK_BITS_MAX} are not worth the power: ask its operator"
    )]
    TooMuchWork(u8),
    #[error("the node refused the registration: {0}")]
    NotRegistered(ErrorCode),
    #[error("the node refused to list the hostnames of this client: {0}")]
    NotListed(ErrorCode),
    #[error("the node refused the greeting: {0}")]
    NotGreeted(ErrorCode),
    #[error("the node does not know the certificate that others take")]
    Stranger,
}

/// How far a tunnel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// To be named or published at the next occasion.
    Waiting,
    /// Asked for.
    Asked,
    Published,
    /// Failed in a way that time may mend.
    Retry,
    /// Failed for good.
    Refused,
}

#[derive(Clone, PartialEq, Debug)]
enum State {
    Greeting,
    /// Welcomed, and waits to be told to go on.
    Greeted {
        registered: bool,
        work_bits: u8,
    },
    Proving,
    Registering,
    Renewing,
    /// A certificate was given and is not stored yet.
    SavingCertificate,
    Listing {
        free: Vec<Hostname>,
    },
    Claiming {
        outstanding: usize,
        given: Vec<(usize, Hostname)>,
    },
    /// Names were given and are not stored yet.
    SavingHostnames,
    Serving,
    Leaving,
}

/// What a request under way was for.
#[derive(Clone, PartialEq, Debug)]
enum Pending {
    Hello,
    Register,
    Renew,
    Hostnames,
    Claim,
    Publish(Vec<usize>),
    Unpublish,
}

impl Session {
    /// Starts with the greeting. `instance` is drawn once per run of the program.
    pub(crate) fn new(instance: u64, tunnels: Arc<Vec<Tunnel>>) -> Self {
        let mut session = Self {
            instance,
            leads: false,
            renew_due: false,
            stages: vec![Stage::Waiting; tunnels.len()],
            tunnels,
            state: State::Greeting,
            gateway: None,
            last_id: 0,
            pending: VecDeque::new(),
            actions: VecDeque::new(),
        };
        session.ask(Message::Hello, Pending::Hello);
        session
    }

    /// Goes on after [`Action::Greeted`]. `renew_due` says whether the certificate is to be renewed first.
    ///
    /// # Errors
    /// A link that does not lead must be known by its certificate.
    pub(crate) fn serve(&mut self, leads: bool, renew_due: bool) -> Result<(), SessionError> {
        let State::Greeted { registered, work_bits } = self.state else { return Ok(()) };
        (self.leads, self.renew_due) = (leads, renew_due);
        if registered && leads && renew_due {
            self.state = State::Renewing;
            self.ask(Message::Renew, Pending::Renew);
        } else if registered {
            self.name();
        } else if !leads {
            return Err(SessionError::Stranger);
        } else if work_bits > WORK_BITS_MAX {
            return Err(SessionError::TooMuchWork(work_bits));
        } else {
            self.state = State::Proving;
            self.actions.push_back(Action::Prove { bits: work_bits });
        }
        Ok(())
    }

    /// From now on this link leads.
    pub(crate) fn lead(&mut self) {
        if !std::mem::replace(&mut self.leads, true) && self.state == State::Serving {
            self.name();
        }
    }

    /// Whether this link leads.
    pub(crate) fn leads(&self) -> bool {
        self.leads
    }

    /// Takes the tunnels as they are now: one has got a name.
    pub(crate) fn learn(&mut self, tunnels: Arc<Vec<Tunnel>>) {
        debug_assert_eq!(tunnels.len(), self.stages.len());
        self.tunnels = tunnels;
        if self.state == State::Serving && !self.leads {
            self.publish();
        }
    }

    /// Publishes nothing here any more; [`Action::Left`] follows.
    pub(crate) fn leave(&mut self) {
        self.state = State::Leaving;
        let published: Vec<usize> =
            (0..self.stages.len()).filter(|index| self.stages.get(*index) == Some(&Stage::Published)).collect();
        for batch in published.chunks(BATCH) {
            for index in batch {
                self.set_stage(*index, Stage::Refused);
            }
            self.ask(Message::Unpublish { tunnels: batch.to_vec() }, Pending::Unpublish);
        }
        self.settle();
    }

    /// The next thing to do, until None.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes a frame from the node.
    pub(crate) fn received(&mut self, frame: &NodeFrame<'_>) -> Result<(), SessionError> {
        match (frame.id, &frame.reply) {
            (0, Reply::Ping { nonce }) => {
                self.send(Message::Pong { nonce: *nonce });
                Ok(())
            }
            (0, Reply::Neighbours { nodes }) => {
                self.actions.push_back(Action::Neighbours(nodes.to_vec()));
                Ok(())
            }
            (0, Reply::Draining) => {
                // Another link takes the lead.
                self.leads = false;
                self.actions.push_back(Action::Drain);
                Ok(())
            }
            (id, reply) => match self.pending.pop_front() {
                Some((asked, pending)) if asked == id => self.answered(pending, reply),
                Some(_) | None => Err(SessionError::Violation("it answers no request")),
            },
        }
    }

    /// Takes the proof that [`Action::Prove`] asked for.
    pub(crate) fn proven(&mut self, public_key: [u8; 32], signature: [u8; 64], counter: u64) {
        debug_assert_eq!(self.state, State::Proving);
        self.state = State::Registering;
        self.ask(Message::Register { public_key, signature, counter }, Pending::Register);
    }

    /// Goes on after what was to be saved is.
    pub(crate) fn saved(&mut self) {
        match self.state {
            State::SavingCertificate => self.name(),
            State::SavingHostnames => self.publish(),
            // A renewal while serving holds nothing up.
            State::Greeting
            | State::Greeted { .. }
            | State::Proving
            | State::Registering
            | State::Renewing
            | State::Listing { .. }
            | State::Claiming { .. }
            | State::Serving
            | State::Leaving => {}
        }
    }

    /// Asks again for what failed in a way that time may mend.
    pub(crate) fn retry(&mut self) {
        for stage in &mut self.stages {
            if *stage == Stage::Retry {
                *stage = Stage::Waiting;
            }
        }
        if self.state == State::Serving {
            self.name();
        }
    }

    /// Asks for a new certificate on a link that serves.
    pub(crate) fn renew(&mut self) {
        if self.state == State::Serving && self.leads {
            self.ask(Message::Renew, Pending::Renew);
        }
    }

    /// The number of the request whose answer comes next.
    pub(crate) fn owed(&self) -> Option<u32> {
        self.pending.front().map(|(id, _)| *id)
    }

    /// Takes a number for a request that this machine does not know.
    pub(crate) fn next_id(&mut self) -> u32 {
        // 0 is the node's. A link would have to live for decades to come round.
        self.last_id = self.last_id.wrapping_add(1).max(1);
        self.last_id
    }

    /// The gateway, known from the greeting on.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    /// A tunnel's name as messages carry it.
    pub(crate) fn wire_name(&self, tunnel: usize) -> Option<Hostname> {
        let hostname = self.tunnels.get(tunnel)?.hostname.as_ref()?;
        Some(self.gateway.as_ref().map_or_else(|| hostname.clone(), |gateway| wire_name(hostname, &gateway.apex)))
    }

    fn answered(&mut self, pending: Pending, reply: &Reply<'_>) -> Result<(), SessionError> {
        match (pending, reply) {
            (Pending::Hello, Reply::Welcome { node, registered, work_bits, apex, port }) => {
                let apex = Hostname::parse(apex).map_err(|_| SessionError::Violation("its apex is no hostname"))?;
                self.gateway = Some(Gateway { apex, port: *port });
                self.state = State::Greeted { registered: *registered, work_bits: *work_bits };
                self.actions.push_back(Action::Greeted(*node));
                Ok(())
            }
            (Pending::Hello, Reply::Refused { code }) => Err(SessionError::NotGreeted(*code)),
            (Pending::Register, Reply::Refused { code }) => Err(SessionError::NotRegistered(*code)),
            (Pending::Hostnames, Reply::Refused { code }) => Err(SessionError::NotListed(*code)),
            (Pending::Register | Pending::Renew, Reply::Certificate { pem }) => {
                if let State::Registering | State::Renewing = self.state {
                    self.state = State::SavingCertificate;
                }
                self.actions.push_back(Action::SaveCertificate((*pem).to_owned()));
                Ok(())
            }
            (Pending::Renew, Reply::Refused { code }) => {
                self.actions.push_back(Action::NotRenewed(*code));
                if self.state == State::Renewing {
                    self.name();
                }
                Ok(())
            }
            (Pending::Hostnames, Reply::Hostnames { names, more }) => self.listed(names, *more),
            (Pending::Claim, Reply::Hostnames { names, .. }) => self.claimed(Ok(names)),
            (Pending::Claim, Reply::Refused { code }) => self.claimed(Err(*code)),
            (Pending::Publish(tunnels), Reply::Outcomes { outcomes }) if outcomes.len() == tunnels.len() => {
                for (tunnel, outcome) in tunnels.into_iter().zip(outcomes) {
                    self.published(tunnel, *outcome);
                }
                self.settle();
                Ok(())
            }
            (Pending::Publish(tunnels), Reply::Refused { code }) => {
                for tunnel in tunnels {
                    self.published(tunnel, Some(*code));
                }
                self.settle();
                Ok(())
            }
            // A node that does not understand is left all the same.
            (Pending::Unpublish, Reply::Outcomes { .. } | Reply::Refused { .. }) => {
                self.settle();
                Ok(())
            }
            (
                Pending::Hello
                | Pending::Register
                | Pending::Renew
                | Pending::Hostnames
                | Pending::Claim
                | Pending::Publish(_)
                | Pending::Unpublish,
                Reply::Welcome { .. }
                | Reply::Certificate { .. }
                | Reply::Hostnames { .. }
                | Reply::Outcomes { .. }
                | Reply::Ping { .. }
                | Reply::Draining
                | Reply::Neighbours { .. },
            ) => Err(SessionError::Violation("it is of another kind than what was asked")),
        }
    }

    /// Publishes what waits, without waiting between batches.
    fn publish(&mut self) {
        self.state = State::Serving;
        if self.leads {
            self.actions.push_back(Action::Ready);
        }
        let waiting = |index: &usize| {
            let named = self.tunnels.get(*index).is_some_and(|tunnel| tunnel.hostname.is_some());
            named && self.stages.get(*index) == Some(&Stage::Waiting)
        };
        let waiting: Vec<usize> = (0..self.stages.len()).filter(waiting).collect();
        for batch in waiting.chunks(BATCH) {
            for index in batch {
                self.set_stage(*index, Stage::Asked);
            }
            self.ask(Message::Publish { tunnels: batch.to_vec() }, Pending::Publish(batch.to_vec()));
        }
        self.settle();
    }

    /// Tells when nothing is under way any more.
    fn settle(&mut self) {
        let publishing = |(_, pending): &(u32, Pending)| matches!(pending, Pending::Publish(_) | Pending::Unpublish);
        if !self.pending.iter().any(publishing) {
            match self.state {
                State::Serving => self.actions.push_back(Action::Settled),
                State::Leaving => self.actions.push_back(Action::Left),
                State::Greeting
                | State::Greeted { .. }
                | State::Proving
                | State::Registering
                | State::Renewing
                | State::SavingCertificate
                | State::Listing { .. }
                | State::Claiming { .. }
                | State::SavingHostnames => {}
            }
        }
    }

    fn published(&mut self, tunnel: usize, outcome: Option<ErrorCode>) {
        if self.state == State::Leaving {
            return;
        }
        let Some(code) = outcome else {
            self.set_stage(tunnel, Stage::Published);
            self.actions.push_back(Action::Published(tunnel));
            return;
        };
        let named = self.tunnels.get(tunnel).is_some_and(|tunnel| tunnel.hostname.is_some());
        self.actions.push_back(Action::Refused { tunnel, code, named });
        if code.retry() {
            self.set_stage(tunnel, Stage::Retry);
            if !self.actions.contains(&Action::RetryLater) {
                self.actions.push_back(Action::RetryLater);
            }
        } else {
            self.set_stage(tunnel, Stage::Refused);
        }
    }

    fn set_stage(&mut self, tunnel: usize, stage: Stage) {
        if let Some(known) = self.stages.get_mut(tunnel) {
            *known = stage;
        }
    }

    fn ask(&mut self, message: Message, pending: Pending) {
        let id = self.send(message);
        self.pending.push_back((id, pending));
    }

    fn send(&mut self, message: Message) -> u32 {
        let id = self.next_id();
        self.actions.push_back(Action::Send(id, message));
        id
    }
}

/// A name as messages carry it: the label of a name directly under the apex, else the whole.
pub(crate) fn wire_name(hostname: &Hostname, apex: &Hostname) -> Hostname {
    hostname.label_under(apex).unwrap_or_else(|| hostname.clone())
}
