//! Greets clients and runs one task for each link.

use super::{
    Ask, Directory, budget,
    neighbours::Teller,
    proof,
    registry::{Link, Registry, Tunnel},
    session::{Session, Step, Violation},
};
use crate::{
    identity::{self, ClientCa},
    node::Neighbours,
    shutdown::Shutdown,
    transport::{
        endpoint::{self, CLOSE_NORMAL, CLOSE_VIOLATION},
        framed::{self, FramedError},
        pulse::{self, Pulse},
        room::{Place, Room},
    },
};
use quinn::{Connection, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use specter_wire::{
    codec,
    error::ErrorCode,
    id::{ClientId, NodeId},
    limits::{BATCH, CERTIFICATE_PEM_BYTES, CONTROL_FRAME_BYTES, NEIGHBOURS},
    link::{ClientFrame, Neighbour, NodeFrame, Reply},
    name::Hostname,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::Instrument as _;

/// What every link of a node shares.
pub struct Links {
    /// Which links live.
    pub registry: Arc<Registry>,
    /// Who owns which names.
    pub directory: Arc<dyn Directory>,
    /// Signs clients' certificates.
    pub client_ca: ClientCa,
    /// This node, told to clients.
    pub node: NodeId,
    /// The other nodes, told to clients.
    pub neighbours: Neighbours,
    /// First apex, told to clients.
    pub apex: Hostname,
    /// Port at which visitors reach the gateway, told to clients.
    pub port: u16,
    /// Zero bits that a registration must show.
    pub work_bits: u8,
    /// Spawns the links' tasks and ends them.
    pub shutdown: Shutdown,
    registrations: Room,
    count: AtomicU64,
}

/// Connections of clients that are about to register, all together and from one source. They are counted apart, since
/// each may take long: clients that are known must always find a way in past them.
const REGISTRATIONS: usize = 1_024;
const REGISTRATIONS_EACH: usize = 64;

/// The greeting must be done in this time.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// A registration, with its proof of work on the slowest device, must be done in this time.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(180);

/// A reply that the client does not take for this long ends the link.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// A suspect link on which nothing at all comes in this time after a probe is dead.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the connection failed")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the control stream failed")]
    Control(#[from] FramedError),
    #[error("the client broke the protocol")]
    Violation(#[from] Violation),
    #[error("the client was too slow with its {0}")]
    Slow(&'static str),
    #[error("the client did not answer a probe")]
    Silent,
    #[error("the node has no room for another link")]
    Full,
}

impl Links {
    /// Links of a node that has none yet.
    pub fn new(
        directory: Arc<dyn Directory>,
        registry: Arc<Registry>,
        client_ca: ClientCa,
        (node, neighbours): (NodeId, Neighbours),
        (apex, port): (Hostname, u16),
        work_bits: u8,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            registry,
            directory,
            client_ca,
            node,
            neighbours,
            apex,
            port,
            work_bits,
            shutdown,
            registrations: Room::new(REGISTRATIONS, REGISTRATIONS_EACH),
            count: AtomicU64::new(0),
        }
    }

    /// Runs the task of a link that was accepted. `place` is its place among those who have not said who they are.
    pub fn serve(self: &Arc<Self>, connection: Connection, place: Place) {
        let links = self.clone();
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let span = tracing::info_span!("link", id, peer = %connection.remote_address());
        self.shutdown.spawn(
            async move {
                let mut task = LinkTask::new(links, connection.clone());
                let outcome = task.run(place).await;
                task.finish();
                match outcome {
                    Ok(()) => connection.close(CLOSE_NORMAL.into(), b""),
                    Err(error) => {
                        let code = match error {
                            LinkError::Violation(_) | LinkError::Control(FramedError::Frame(_)) => CLOSE_VIOLATION,
                            LinkError::Connection(_)
                            | LinkError::Control(FramedError::Io(_))
                            | LinkError::Slow(_)
                            | LinkError::Silent
                            | LinkError::Full => CLOSE_NORMAL,
                        };
                        connection.close(code.into(), error.to_string().as_bytes());
                        tracing::debug!(error = &error as &dyn std::error::Error, "a link ended");
                    }
                }
            }
            .instrument(span),
        );
    }
}

/// One link's task and its state.
struct LinkTask {
    links: Arc<Links>,
    connection: Connection,
    session: Session,
    public_key: Option<[u8; 32]>,
    entered: Option<Arc<Link>>,
    teller: Option<Teller>,
    /// Whether the client knows that the node goes away.
    knows_of_drain: bool,
    probes: (mpsc::Sender<()>, mpsc::Receiver<()>),
    probe: Option<Probe>,
    nonce: u64,
}

/// A question for a sign of life that was not answered yet.
struct Probe {
    nonce: u64,
    asked: Instant,
    /// When it is looked whether anything came: first to doubt the link, then to give it up.
    due: Instant,
    /// What had come before it was asked.
    pulse: Pulse,
}

impl LinkTask {
    fn new(links: Arc<Links>, connection: Connection) -> Self {
        let public_key = connection
            .peer_identity()
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .and_then(|chain| identity::subject::public_key_of(chain.first()?));
        let session = Session::new(public_key.as_ref().map(identity::subject::client_id_of_key));
        let probes = mpsc::channel(1);
        Self {
            links,
            connection,
            session,
            public_key,
            entered: None,
            teller: None,
            knows_of_drain: false,
            probes,
            probe: None,
            nonce: 0,
        }
    }

    fn finish(&mut self) {
        if let Some(link) = self.entered.take() {
            self.links.registry.leave(link.id());
            tracing::info!(client = ?link.client(), "a link is down");
        }
    }

    async fn run(&mut self, place: Place) -> Result<(), LinkError> {
        let opened = timeout(GREETING_TIMEOUT, self.connection.accept_bi());
        let (mut send, mut recv) = opened.await.map_err(|_| LinkError::Slow("control stream"))??;
        let mut unregistered = Some(place);
        let mut deadline = Instant::now() + GREETING_TIMEOUT;
        loop {
            let Some(body) = self.next(&mut send, &mut recv, unregistered.is_some().then_some(deadline)).await? else {
                return Ok(());
            };
            // A decoded batch takes 3 KiB: it must not live on in this task while the link is idle.
            let (id, step) = {
                let frame: ClientFrame<'_> = codec::decode(&body).map_err(FramedError::from)?;
                (frame.id, self.session.handle(&frame)?)
            };
            if let Step::Welcome { client: None, .. } = step {
                deadline = Instant::now() + REGISTRATION_TIMEOUT;
                let address = self.connection.remote_address().ip();
                unregistered = Some(self.links.registrations.enter(address).ok_or(LinkError::Full)?);
            }
            let wait = self.entered.as_ref().map_or(Duration::ZERO, |link| link.spend(budget::cost(&step)));
            if !wait.is_zero() {
                sleep(wait).await;
            }
            if let Some(reply) = self.take(id, step).await? {
                write(&mut send, &reply).await?;
            }
            if self.entered.is_some() {
                unregistered = None;
            }
        }
    }

    /// The next control message, or none at the end; meanwhile probes go out.
    async fn next(
        &mut self,
        send: &mut SendStream,
        recv: &mut RecvStream,
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<u8>>, LinkError> {
        let mut read = std::pin::pin!(framed::read_body(recv, CONTROL_FRAME_BYTES));
        loop {
            let limit = [deadline, self.probe.as_ref().map(|probe| probe.due)].into_iter().flatten().min();
            tokio::select! {
                outcome = &mut read => return Ok(outcome?),
                _ = self.probes.1.recv(), if self.probe.is_none() => {
                    self.nonce += 1;
                    let (nonce, asked, pulse) = (self.nonce, Instant::now(), Pulse::of(&self.connection));
                    let due = asked + pulse::patience(&self.connection).min(PROBE_TIMEOUT);
                    self.probe = Some(Probe { nonce, asked, due, pulse });
                    let probe = encode(0, Reply::Ping { nonce: self.nonce })?;
                    write(send, &probe).await?;
                }
                nodes = told(&mut self.teller) => write(send, &encode(0, Reply::Neighbours { nodes })?).await?,
                () = self.links.shutdown.draining(), if self.entered.is_some() && !self.knows_of_drain => {
                    self.knows_of_drain = true;
                    write(send, &encode(0, Reply::Draining)?).await?;
                }
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => match &mut self.probe {
                    // An acknowledgement at least came: the client lives, and its answer is held up behind its
                    // visitors' bytes, or behind our own refusal to take more of them.
                    Some(probe) if Pulse::of(&self.connection) != probe.pulse => self.alive(),
                    Some(probe) if probe.asked.elapsed() < PROBE_TIMEOUT => {
                        probe.due = probe.asked + PROBE_TIMEOUT;
                        if let Some(link) = &self.entered {
                            link.suspect();
                        }
                    }
                    Some(_) => return Err(LinkError::Silent),
                    None => return Err(LinkError::Slow("registration")),
                },
            }
        }
    }

    /// Does what a step asks for and returns the frame that answers it.
    async fn take(&mut self, id: u32, step: Step) -> Result<Option<Vec<u8>>, LinkError> {
        match step {
            Step::Welcome { instance, client } => {
                if let Some(client) = client {
                    self.enter(client, instance)?;
                }
                let welcome = Reply::Welcome {
                    node: self.links.node,
                    registered: client.is_some(),
                    work_bits: self.links.work_bits,
                    apex: self.links.apex.as_str(),
                    port: self.links.port,
                };
                encode(id, welcome).map(Some)
            }
            Step::Prove { proof, instance } => match proof::check(&self.connection, &proof, self.links.work_bits) {
                Some(client) => {
                    self.public_key = Some(proof.public_key);
                    self.session.proven(client);
                    self.enter(client, instance)?;
                    tracing::info!(?client, "a client registered");
                    self.certify(id).map(Some)
                }
                None => refuse(id, ErrorCode::BadProof).map(Some),
            },
            Step::Renew => self.certify(id).map(Some),
            Step::Ask { client, ask } => self.ask(id, client, ask).await.map(Some),
            Step::Alive { nonce } => {
                if self.probe.as_ref().is_some_and(|probe| probe.nonce == nonce) {
                    self.alive();
                }
                Ok(None)
            }
            Step::Refuse(code) => refuse(id, code).map(Some),
        }
    }

    fn alive(&mut self) {
        self.probe = None;
        if let Some(link) = &self.entered {
            link.trust();
        }
    }

    fn enter(&mut self, client: ClientId, instance: u64) -> Result<(), LinkError> {
        let (connection, probes) = (self.connection.clone(), self.probes.0.clone());
        let link = self.links.registry.enter(client, instance, connection, probes).map_err(|_| LinkError::Full)?;
        tracing::info!(?client, "a link is up");
        endpoint::widen(&self.connection);
        self.entered = Some(link);
        self.teller = Some(Teller::new(client, self.links.neighbours.clone()));
        Ok(())
    }

    fn certify(&self, id: u32) -> Result<Vec<u8>, LinkError> {
        let Some(key) = &self.public_key else { return refuse(id, ErrorCode::Internal) };
        match self.links.client_ca.issue(key, SystemTime::now()) {
            Ok(pem) if pem.len() <= CERTIFICATE_PEM_BYTES => encode(id, Reply::Certificate { pem: &pem }),
            Ok(_) => refuse(id, ErrorCode::Internal),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no client certificate could be issued");
                refuse(id, ErrorCode::Internal)
            }
        }
    }

    async fn ask(&self, id: u32, client: ClientId, ask: Ask) -> Result<Vec<u8>, LinkError> {
        let directory = &self.links.directory;
        match ask {
            Ask::Hostnames { after } => match directory.hostnames(client, after, BATCH).await {
                Ok((names, more)) => hostnames(id, &names, more),
                Err(code) => refuse(id, code),
            },
            Ask::Claim { count } => match directory.claim(client, count).await {
                Ok(names) => hostnames(id, &names, false),
                Err(code) => refuse(id, code),
            },
            Ask::Publish { tunnels } => {
                let names = tunnels.iter().flatten().map(|(hostname, _)| hostname.clone()).collect();
                let mut answers = directory.authorize(client, names).await.into_iter();
                let mut served = Vec::new();
                let outcomes = outcomes(id, tunnels, |(hostname, tunnel)| {
                    answer(answers.next())?;
                    self.publish(&hostname, tunnel)?;
                    served.push(hostname);
                    Ok(())
                });
                directory.announce(served).await;
                outcomes
            }
            Ask::Unpublish { hostnames } => outcomes(id, hostnames, |hostname| {
                if let Some(link) = &self.entered {
                    self.links.registry.unpublish(link.id(), &hostname);
                }
                Ok(())
            }),
            Ask::Release { hostnames } => {
                let names = hostnames.iter().flatten().cloned().collect();
                let mut answers = directory.release(client, names).await.into_iter();
                outcomes(id, hostnames, |hostname| {
                    answer(answers.next())?;
                    self.links.registry.withdraw(&hostname);
                    Ok(())
                })
            }
        }
    }

    fn publish(&self, hostname: &Hostname, tunnel: Tunnel) -> Result<(), ErrorCode> {
        let link = self.entered.as_ref().ok_or(ErrorCode::NotRegistered)?;
        match self.links.registry.publish(link.id(), hostname, tunnel) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorCode::NoLiveLink),
            Err(_) => Err(ErrorCode::Limit),
        }
    }
}

/// What the client is to be told of other nodes; nothing before it is known.
async fn told(teller: &mut Option<Teller>) -> heapless::Vec<Neighbour, NEIGHBOURS> {
    match teller {
        Some(teller) => teller.next().await,
        None => std::future::pending().await,
    }
}

/// The directory's answer about one name; it gives one for each.
fn answer(answer: Option<Option<ErrorCode>>) -> Result<(), ErrorCode> {
    match answer {
        Some(None) => Ok(()),
        Some(Some(code)) => Err(code),
        None => Err(ErrorCode::Internal),
    }
}

/// One outcome for each item, in order; an item that was wrong when it came keeps its own error.
fn outcomes<T>(
    id: u32,
    items: Vec<Result<T, ErrorCode>>,
    mut act: impl FnMut(T) -> Result<(), ErrorCode>,
) -> Result<Vec<u8>, LinkError> {
    let outcomes = items.into_iter().map(|item| item.and_then(&mut act).err()).collect();
    encode(id, Reply::Outcomes { outcomes })
}

fn hostnames(id: u32, names: &[Hostname], more: bool) -> Result<Vec<u8>, LinkError> {
    let names = names.iter().take(BATCH).map(Hostname::as_str).collect();
    encode(id, Reply::Hostnames { names, more })
}

fn refuse(id: u32, code: ErrorCode) -> Result<Vec<u8>, LinkError> {
    encode(id, Reply::Refused { code })
}

fn encode(id: u32, reply: Reply<'_>) -> Result<Vec<u8>, LinkError> {
    Ok(framed::encode(&NodeFrame { id, reply }, CONTROL_FRAME_BYTES).map_err(FramedError::from)?)
}

async fn write(send: &mut SendStream, frame: &[u8]) -> Result<(), LinkError> {
    let written =
        timeout(REPLY_TIMEOUT, send.write_all(frame)).await.map_err(|_| LinkError::Slow("reading of replies"))?;
    Ok(written.map_err(|error| FramedError::Io(error.into()))?)
}
