//! One link from dialling to its end: carries out what its session asks for, as the keeper of all links orders.

use super::{End, LinkLost, Orders, Report, sentence, state::State};
use crate::{
    config::{Tunnel, full_name},
    control::{ANSWER, Control, ControlError},
    link::{Link, LinkError},
    links::LinkNumber,
    session::{Action, Message, Session},
    store::Store,
    work,
};
use quinn::{Connection, ConnectionError};
use specter_wire::{
    error::ErrorCode,
    limits::BATCH,
    link::{EXPORTER_BYTES, EXPORTER_LABEL, Request, signature_input},
    name::Hostname,
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// A link's end of what it shares with the keeper.
pub(super) struct Seat {
    pub(super) link: LinkNumber,
    pub(super) state: Arc<State>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) reports: mpsc::Sender<(LinkNumber, Report)>,
    pub(super) stop: CancellationToken,
}

impl Seat {
    /// Opens a link and speaks with the node until the link ends or is to end.
    pub(super) async fn run(mut self, dial: impl Future<Output = Result<Link, LinkError>>, instance: u64) -> End {
        let dialled = tokio::select! {
            () = self.stop.cancelled() => return End::Stopped,
            () = closed(&mut self.orders) => return End::Closed,
            dialled = dial => dialled,
        };
        let opened = match dialled {
            Ok(opened) => opened,
            Err(error) => return End::Lost(error.into()),
        };
        let connection = &opened.connection;
        let service = self.state.service.clone();
        let tasks = TaskTracker::new();
        let end = tokio::select! {
            // Who says farewell hangs up next.
            biased;
            end = self.drive(&opened, instance, &tasks) => end,
            () = service.accept(connection, &tasks) => End::Lost(self.reason_of(connection)),
            error = opened.lost() => End::Lost(LinkError::from_tcp(error, &self.state.apex).into()),
        };
        // The stream's error is less than what the connection knows.
        let end = match end {
            End::Lost(_) if connection.close_reason().is_some() => End::Lost(self.reason_of(connection)),
            End::Lost(_) | End::Stopped | End::Closed | End::Fatal(_) => end,
        };
        opened.close().await;
        end
    }

    async fn drive(&mut self, opened: &Link, instance: u64, tasks: &TaskTracker) -> End {
        let tunnels = self.state.tunnels();
        let session = Session::new(instance, tunnels.borrow().clone());
        let drive = Drive {
            seat: self,
            opened,
            tasks,
            tunnels,
            session,
            proof: None,
            retry_at: None,
            renew_check_at: Instant::now() + RENEW_CHECK,
            drained_by: None,
            left: false,
        };
        match drive.run().await {
            Ok(end) | Err(end) => end,
        }
    }

    /// Why a connection ended.
    fn reason_of(&self, connection: &Connection) -> LinkLost {
        match connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) if close.error_code.into_inner() == REPLACED => {
                LinkLost::Replaced
            }
            Some(error) => LinkError::from_connection(error, &self.state.apex).into(),
            None => ControlError::Ended.into(),
        }
    }

    async fn report(&self, report: Report) {
        // The keeper ends after its links.
        self.reports.send((self.link, report)).await.ok();
    }
}

struct Drive<'a> {
    seat: &'a mut Seat,
    opened: &'a Link,
    /// The streams of this link.
    tasks: &'a TaskTracker,
    tunnels: watch::Receiver<Arc<Vec<Tunnel>>>,
    session: Session,
    proof: Option<Proof>,
    retry_at: Option<Instant>,
    renew_check_at: Instant,
    /// When a node that goes away has had time enough.
    drained_by: Option<Instant>,
    /// Whether nothing is published here any more, by our own wish.
    left: bool,
}

/// A proof of work under way.
type Proof = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

impl Drive<'_> {
    async fn run(mut self) -> Result<End, End> {
        let mut control = Control::open(&self.opened.connection).await?;
        match self.speak(&mut control).await {
            // Streams that were under way when the node said that it goes are served yet.
            Err(End::Lost(_)) if self.drained_by.is_some() => {
                tokio::select! {
                    _ = self.opened.connection.closed() => {}
                    () = at(self.drained_by) => {}
                    () = closed(&mut self.seat.orders) => {}
                    () = self.seat.stop.cancelled() => return Ok(End::Stopped),
                }
                Ok(End::Closed)
            }
            end => end,
        }
    }

    async fn speak(&mut self, control: &mut Control) -> Result<End, End> {
        let (mut owed_before, mut answer_by) = (None, None);
        loop {
            while let Some(action) = self.session.poll() {
                self.act(action, control).await?;
            }
            let owed = self.session.owed();
            if owed != owed_before {
                owed_before = owed;
                answer_by = owed.map(|_| Instant::now() + ANSWER);
            }
            tokio::select! {
                () = self.seat.stop.cancelled() => {
                    self.release(control).await;
                    return Ok(End::Stopped);
                }
                ordered = self.seat.orders.changed() => {
                    // The keeper is gone: so is the client.
                    ordered.map_err(|_| End::Stopped)?;
                    if self.obey()? {
                        return Ok(End::Closed);
                    }
                }
                advanced = control.advance() => {
                    advanced?;
                    self.session.received(&control.frame()?)?;
                }
                Ok(()) = self.tunnels.changed() => {
                    let tunnels = self.tunnels.borrow_and_update().clone();
                    self.session.learn(tunnels);
                }
                counter = at_hand(&mut self.proof) => self.register(counter)?,
                () = at(answer_by) => return Err(ControlError::Silent.into()),
                () = at(self.retry_at) => {
                    self.retry_at = None;
                    self.session.retry();
                }
                () = at(self.drained_by) => return Ok(End::Closed),
                () = self.tasks.wait(), if self.left => return Ok(End::Closed),
                () = sleep_until(self.renew_check_at) => {
                    self.renew_check_at = Instant::now() + RENEW_CHECK;
                    if self.seat.state.is_renewal_due() {
                        self.session.renew();
                    }
                }
            }
        }
    }

    /// Does what the keeper wants; true is the end.
    fn obey(&mut self) -> Result<bool, End> {
        let Orders { serve, lead, leave, close } = *self.seat.orders.borrow_and_update();
        if serve {
            self.session.serve(lead, self.seat.state.is_renewal_due())?;
        }
        if leave {
            self.session.leave();
        } else if lead {
            self.session.lead();
        }
        Ok(close)
    }

    async fn act(&mut self, action: Action, control: &mut Control) -> Result<(), End> {
        match action {
            Action::Greeted(node) => {
                self.seat.report(Report::Welcomed { node, opened: self.opened.clone() }).await;
            }
            Action::Send(id, message) => {
                if let (Message::Publish { .. }, Some(gateway)) = (&message, self.session.gateway()) {
                    self.seat.state.set_routes(&gateway.apex);
                }
                let session = &self.session;
                control.send(|buffer| session.encode(id, &message, buffer)).await?;
            }
            Action::Prove { bits } => {
                info!(bits, "registering this client: computing a proof of work");
                let (exporter, public_key) = (self.exporter()?, self.seat.state.key.public_key());
                self.proof = Some(Box::pin(async move { work::prove(&exporter, &public_key, bits).await }));
            }
            Action::SaveCertificate(pem) => {
                self.seat.state.save_certificate(pem).await?;
                info!("the node gave a certificate");
                self.session.saved();
            }
            Action::SaveHostnames(names) => {
                self.seat.state.save_hostnames(names).await.map_err(|error| End::Fatal(error.into()))?;
                let tunnels = self.tunnels.borrow_and_update().clone();
                self.session.learn(tunnels);
                self.session.saved();
            }
            Action::Ready => self.seat.report(Report::Ready).await,
            Action::Settled => self.seat.report(Report::Settled).await,
            Action::Published(tunnel) => self.published(tunnel).await,
            Action::Refused { tunnel, code, named } => self.refused(tunnel, code, named).await,
            Action::NotRenewed(code) => warn!(%code, "the certificate was not renewed: trying again tomorrow"),
            Action::RetryLater => self.retry_at = Some(Instant::now() + RETRY),
            Action::Neighbours(nodes) => self.seat.report(Report::Neighbours(nodes)).await,
            Action::Drain => {
                self.drained_by.get_or_insert(Instant::now() + DRAIN);
                self.seat.report(Report::Draining).await;
            }
            Action::Left => {
                self.left = true;
                self.tasks.close();
            }
        }
        Ok(())
    }

    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], End> {
        let mut exporter = [0; EXPORTER_BYTES];
        let connection = &self.opened.connection;
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| LinkLost::Exporter)?;
        Ok(exporter)
    }

    fn register(&mut self, counter: Option<u64>) -> Result<(), End> {
        self.proof = None;
        let counter = counter.ok_or(LinkLost::NoProof)?;
        let key = &self.seat.state.key;
        let signature = key.sign(&signature_input(&self.exporter()?));
        self.session.proven(key.public_key(), signature, counter);
        Ok(())
    }

    async fn published(&mut self, index: usize) {
        if let Some((url, target)) = self.names(index) {
            self.seat.report(Report::Published { tunnel: index, url, target }).await;
        }
    }

    async fn refused(&mut self, index: usize, code: ErrorCode, named: bool) {
        let tunnels = self.tunnels.borrow().clone();
        let Some(tunnel) = tunnels.get(index) else {
            return;
        };
        let target = tunnel.target.to_string();
        let subject = match (&tunnel.hostname, named) {
            (Some(hostname), true) => format!("the tunnel {hostname} to {target} is not served"),
            (Some(_) | None, _) => format!("the tunnel to {target} got no hostname"),
        };
        let remedy = if code.retry() {
            "; trying again soon"
        } else if let ErrorCode::NotOwner | ErrorCode::UnknownHostname = code {
            "; remove its `hostname` from the configuration to get a new one, or restore the key that owns it"
        } else {
            "; the node's operator can tell more"
        };
        let reason = format!("{subject}: {code}{remedy}");
        self.seat.report(Report::Refused { tunnel: index, target, reason }).await;
    }

    /// Where visitors reach a tunnel, and where it leads.
    fn names(&self, index: usize) -> Option<(String, String)> {
        let tunnels = self.tunnels.borrow();
        let tunnel = tunnels.get(index)?;
        let gateway = self.session.gateway()?;
        let host = full_name(tunnel.hostname.as_ref()?, gateway.apex.as_str());
        let scheme = tunnel.target.visitor_scheme();
        let port = if gateway.port == HTTPS { String::new() } else { format!(":{}", gateway.port) };
        Some((format!("{scheme}://{host}{port}"), tunnel.target.to_string()))
    }

    /// Gives the names of an identity back that dies with this program; the link that leads does that for all.
    async fn release(&mut self, control: &mut Control) {
        let (Store::Memory, true) = (&self.seat.state.store, self.session.leads()) else {
            return;
        };
        let count = self.tunnels.borrow().len();
        let names: Vec<Hostname> = (0..count).filter_map(|index| self.session.wire_name(index)).collect();
        for batch in names.chunks(BATCH) {
            let hostnames: heapless::Vec<&str, BATCH> = batch.iter().map(Hostname::as_str).collect();
            let id = self.session.next_id();
            match timeout(RELEASE, control.ask(id, Request::Release { hostnames })).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(reason = sentence(&error), "the hostnames were not released"),
                Err(_) => warn!("the hostnames were not released: the node did not answer in time"),
            }
        }
    }
}

/// Waits until the keeper wants the link closed.
async fn closed(orders: &mut watch::Receiver<Orders>) {
    // An error means that the keeper is gone, and wants nothing any more.
    orders.wait_for(|orders| orders.close).await.ok();
}

/// Waits for a moment, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for a proof, or for ever.
async fn at_hand(proof: &mut Option<Proof>) -> Option<u64> {
    match proof {
        Some(proof) => proof.await,
        None => std::future::pending().await,
    }
}

/// Port that URLs leave out.
const HTTPS: u16 = 443;

/// Close code of a connection that a newer link of the same run replaced.
const REPLACED: u64 = 1;

/// Certificates live for months.
const RENEW_CHECK: Duration = Duration::from_secs(24 * 3600);

/// Wait before asking again for tunnels that were refused for a while.
const RETRY: Duration = Duration::from_secs(5);

/// Longest wait at the end of the program.
const RELEASE: Duration = Duration::from_secs(3);

/// Longest that streams may go on at a node that goes away.
const DRAIN: Duration = Duration::from_secs(60);
