//! Carries out what the session of one link asks for.

use super::{Client, End, Event, LinkLost, sentence, unix_now_s};
use crate::{
    config::full_name,
    control::{ANSWER, Control, ControlError},
    rewrite::{NewName, Values},
    serve::Routes,
    session::{Action, Message, Session, Spec},
    store::Store,
    work,
};
use quinn::Connection;
use specter_wire::{
    error::ErrorCode,
    limits::BATCH,
    link::{EXPORTER_BYTES, EXPORTER_LABEL, Request, signature_input},
    name::Hostname,
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Speaks with the node until the link ends or is to end.
pub(super) async fn drive(client: &mut Client, connection: &Connection, stop: &CancellationToken) -> End {
    match Drive::new(client, connection).run(stop).await {
        Ok(end) | Err(end) => end,
    }
}

struct Drive<'a> {
    client: &'a mut Client,
    connection: &'a Connection,
    session: Session,
    proof: Option<Proof>,
    retry_at: Option<Instant>,
    renew_check_at: Instant,
}

/// A proof of work under way.
type Proof = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

impl<'a> Drive<'a> {
    fn new(client: &'a mut Client, connection: &'a Connection) -> Self {
        let renew_due = client.certificate.as_ref().is_some_and(|certificate| certificate.is_due(unix_now_s()));
        let spec = |tunnel: &crate::config::Tunnel| Spec {
            hostname: tunnel.hostname.clone(),
            carries: tunnel.target.carries(),
            host: tunnel.host.clone(),
            header_timeout_ms: tunnel.header_timeout_ms,
        };
        let specs = client.config.tunnels.iter().map(spec).collect();
        let session = Session::new(client.instance, renew_due, specs);
        Self { client, connection, session, proof: None, retry_at: None, renew_check_at: Instant::now() + RENEW_CHECK }
    }

    async fn run(mut self, stop: &CancellationToken) -> Result<End, End> {
        let mut control = Control::open(self.connection).await?;
        let (mut owed_before, mut answer_by) = (None, None);
        loop {
            while let Some(action) = self.session.poll() {
                if let Some(end) = self.act(action, &mut control).await? {
                    return Ok(end);
                }
            }
            let owed = self.session.owed();
            if owed != owed_before {
                owed_before = owed;
                answer_by = owed.map(|_| Instant::now() + ANSWER);
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.release(&mut control).await;
                    return Ok(End::Stopped);
                }
                advanced = control.advance() => {
                    advanced?;
                    self.session.received(&control.frame()?)?;
                }
                counter = at_hand(&mut self.proof) => self.register(counter)?,
                () = at(answer_by) => return Err(ControlError::Silent.into()),
                () = at(self.retry_at) => {
                    self.retry_at = None;
                    self.session.retry();
                }
                () = sleep_until(self.renew_check_at) => {
                    self.renew_check_at = Instant::now() + RENEW_CHECK;
                    if self.client.certificate.as_ref().is_some_and(|certificate| certificate.is_due(unix_now_s())) {
                        self.session.renew();
                    }
                }
            }
        }
    }

    async fn act(&mut self, action: Action, control: &mut Control) -> Result<Option<End>, End> {
        match action {
            Action::Send(id, message) => {
                if let Message::Publish { .. } = message {
                    self.set_routes();
                }
                let session = &self.session;
                control.send(|buffer| session.encode(id, &message, buffer)).await?;
            }
            Action::Prove { bits } => {
                info!(bits, "registering this client: computing a proof of work");
                let (exporter, public_key) = (self.exporter()?, self.client.key.public_key());
                self.proof = Some(Box::pin(async move { work::prove(&exporter, &public_key, bits).await }));
            }
            Action::SaveCertificate(pem) => {
                self.client.save_certificate(pem).await?;
                info!("the node gave a certificate");
                self.session.saved();
            }
            Action::SaveHostnames(names) => self.save_hostnames(names).await?,
            Action::Published(tunnel) => self.published(tunnel).await,
            Action::Refused { tunnel, code, named } => self.refused(tunnel, code, named).await,
            Action::NotRenewed(code) => warn!(%code, "the certificate was not renewed: trying again tomorrow"),
            Action::RetryLater => self.retry_at = Some(Instant::now() + RETRY),
            Action::Drain => return Ok(Some(End::Drained)),
        }
        Ok(None)
    }

    /// Streams may come as soon as the node has read what is published.
    fn set_routes(&self) {
        let route = |(index, tunnel): (usize, &crate::config::Tunnel)| {
            Some((self.session.wire_name(index)?, Arc::new(tunnel.target.clone())))
        };
        let routes: Routes = self.client.config.tunnels.iter().enumerate().filter_map(route).collect();
        self.client.routes.send_replace(Arc::new(routes));
    }

    fn exporter(&self) -> Result<[u8; EXPORTER_BYTES], End> {
        let mut exporter = [0; EXPORTER_BYTES];
        self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| LinkLost::Exporter)?;
        Ok(exporter)
    }

    fn register(&mut self, counter: Option<u64>) -> Result<(), End> {
        self.proof = None;
        let counter = counter.ok_or(LinkLost::NoProof)?;
        let signature = self.client.key.sign(&signature_input(&self.exporter()?));
        self.session.proven(self.client.key.public_key(), signature, counter);
        Ok(())
    }

    async fn save_hostnames(&mut self, names: Vec<(usize, Hostname)>) -> Result<(), End> {
        let new_name = |(index, name): &(usize, Hostname)| {
            let target = self.client.config.tunnels.get(*index)?.target.to_string();
            Some(NewName { tunnel: *index, target, hostname: name.to_string() })
        };
        let values = Values { hostnames: names.iter().filter_map(new_name).collect(), ..Values::default() };
        self.client.save(values).await.map_err(|error| End::Fatal(error.into()))?;
        for (index, name) in names {
            if let Some(tunnel) = self.client.config.tunnels.get_mut(index) {
                tunnel.hostname = Some(name);
            }
        }
        self.session.saved();
        Ok(())
    }

    async fn published(&mut self, index: usize) {
        let Some((url, target)) = self.names(index) else {
            return;
        };
        info!(url, target, "published");
        self.client.tell(Event::Published { url, target }).await;
    }

    async fn refused(&mut self, index: usize, code: ErrorCode, named: bool) {
        let Some(tunnel) = self.client.config.tunnels.get(index) else {
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
        warn!("{reason}");
        self.client.tell(Event::Refused { target, reason }).await;
    }

    /// Where visitors reach a tunnel, and where it leads.
    fn names(&self, index: usize) -> Option<(String, String)> {
        let tunnel = self.client.config.tunnels.get(index)?;
        let gateway = self.session.gateway()?;
        let host = full_name(tunnel.hostname.as_ref()?, gateway.apex.as_str());
        let scheme = tunnel.target.visitor_scheme();
        let port = if gateway.port == HTTPS { String::new() } else { format!(":{}", gateway.port) };
        Some((format!("{scheme}://{host}{port}"), tunnel.target.to_string()))
    }

    /// Gives the names of an identity back that dies with this program.
    async fn release(&mut self, control: &mut Control) {
        let Store::Memory = self.client.store else {
            return;
        };
        let names: Vec<Hostname> =
            (0..self.client.config.tunnels.len()).filter_map(|index| self.session.wire_name(index)).collect();
        for batch in names.chunks(BATCH) {
            let hostnames = batch.iter().map(Hostname::as_str).collect();
            let id = self.session.next_id();
            match timeout(RELEASE, control.ask(id, Request::Release { hostnames })).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(reason = sentence(&error), "the hostnames were not released"),
                Err(_) => warn!("the hostnames were not released: the node did not answer in time"),
            }
        }
    }
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

/// Certificates live for months.
const RENEW_CHECK: Duration = Duration::from_secs(24 * 3600);

/// Wait before asking again for tunnels that were refused for a while.
const RETRY: Duration = Duration::from_secs(5);

/// Longest wait at the end of the program.
const RELEASE: Duration = Duration::from_secs(3);
