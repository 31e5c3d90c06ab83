//! `ls` and `release`: one question to a node about the hostnames that this client owns. Works beside a running `tunnel`.

use crate::{
    config::{Config, full_name},
    control::{Control, ControlError},
    identity::{Certificate, Key, KeyError},
    link::{Dialer, Link, LinkError, SettingsError},
    links::Plan,
    session::wire_name,
    tunnel::random_u64,
};
use specter_wire::{
    link::{Reply, Request},
    name::{Hostname, NameError},
};
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

/// Why nothing was listed or released.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnedError {
    #[error("this client is not registered yet: run `client-lite tunnel` with this configuration first")]
    NotRegistered,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the certificates in the CA file cannot be used: give PEM files of X.509 version 3")]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("`{hostname}` is no hostname")]
    Name { hostname: String, source: NameError },
    #[error("{hostname} was not released")]
    NotReleased { hostname: String, source: ControlError },
}

/// One line for each owned hostname: its full name and where it leads.
pub(crate) async fn list(config: &Config) -> Result<Vec<String>, OwnedError> {
    let (mut node, dialer) = open(config).await?;
    let mut lines = Vec::new();
    let mut after = String::new();
    for id in FIRST_ID.. {
        let reply = node.control.ask(id, Request::Hostnames { after: &after }).await?;
        let Reply::Hostnames { names, more } = reply else {
            return Err(failure(&reply).into());
        };
        lines.extend(names.iter().map(|name| line(config, &node.apex, name)));
        match names.last().filter(|last| more && **last > after.as_str()) {
            Some(last) => after = (*last).to_owned(),
            None => break,
        }
    }
    node.close(dialer).await;
    Ok(lines)
}

/// Gives a hostname back. Returns what to tell the user.
pub(crate) async fn release(config: &Config, hostname: &str) -> Result<String, OwnedError> {
    let name =
        Hostname::parse(hostname).map_err(|source| OwnedError::Name { hostname: hostname.to_owned(), source })?;
    let (mut node, dialer) = open(config).await?;
    let apex = node.apex.clone();
    let wire_name = wire_name(&name, &apex);
    let full = full_name(&wire_name, apex.as_str());
    let hostnames = [wire_name.as_str()].into_iter().collect();
    let answer = node.control.ask(FIRST_ID, Request::Release { hostnames }).await?;
    let refusal = match &answer {
        Reply::Outcomes { outcomes } => match outcomes.first() {
            Some(None) => None,
            Some(Some(code)) => Some(ControlError::Refused(*code)),
            None => Some(ControlError::Kind),
        },
        Reply::Welcome { .. }
        | Reply::Certificate { .. }
        | Reply::Hostnames { .. }
        | Reply::Refused { .. }
        | Reply::Ping { .. }
        | Reply::Draining
        | Reply::Neighbours { .. } => Some(failure(&answer)),
    };
    if let Some(source) = refusal {
        return Err(OwnedError::NotReleased { hostname: full, source });
    }
    drop(answer);
    node.close(dialer).await;
    let used = config.tunnels.iter().filter_map(|tunnel| tunnel.hostname.as_ref());
    let hint = if used.map(|used| full_name(used, apex.as_str())).any(|used| used == full) {
        "; remove it from the configuration, or its tunnel is refused at the next start"
    } else {
        ""
    };
    Ok(format!("released {full}{hint}"))
}

/// A link that publishes nothing, with the apex that the node tells.
struct Greeted {
    link: Link,
    control: Control,
    apex: Hostname,
}

impl Greeted {
    async fn close(self, dialer: Dialer) {
        self.link.close().await;
        drop(self);
        dialer.finish().await;
    }
}

/// Tries every address of the apex, each a little after the one before; the first node that greets is taken.
///
/// # Errors
/// The most telling failure: what a node said before what a silence means.
async fn open(config: &Config) -> Result<(Greeted, Dialer), OwnedError> {
    if config.certificate.is_empty() || config.private_key.0.is_empty() {
        return Err(OwnedError::NotRegistered);
    }
    let key = Key::from_pem(&config.private_key.0)?;
    let certificate = Certificate::from_pem(&config.certificate, &key).map_err(|_| OwnedError::NotRegistered)?;
    let mut dialer = Dialer::new(config.apex.clone(), config.memory);
    let settings = dialer.settings(&config.trust, Some((&certificate, &key)))?;
    let mut attempts = JoinSet::new();
    for (index, address) in (0..).zip(dialer.look_up().await?.into_iter().take(ADDRESSES)) {
        let dial = dialer.dial(address, settings.clone(), Plan::first(config.transport));
        attempts.spawn(async move {
            sleep(STAGGER * index).await;
            greet(dial.await?).await
        });
    }
    let mut failure = LinkError::Silent { apex: config.apex.to_string() }.into();
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(greeted)) => return Ok((greeted, dialer)),
            Ok(Err(error)) => {
                if let OwnedError::Link(LinkError::Silent { .. }) = failure {
                    failure = error;
                }
            }
            // An attempt ends by itself or with this function.
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn greet(link: Link) -> Result<Greeted, OwnedError> {
    let mut control = Control::open(&link.connection).await?;
    let apex = {
        let reply = control.greet(random_u64()).await?;
        let Reply::Welcome { registered, apex, .. } = reply else {
            return Err(failure(&reply).into());
        };
        if !registered {
            return Err(OwnedError::NotRegistered);
        }
        Hostname::parse(apex).map_err(|_| ControlError::Kind)?
    };
    Ok(Greeted { link, control, apex })
}

fn line(config: &Config, apex: &Hostname, name: &str) -> String {
    let full = if name.contains('.') { name.to_owned() } else { format!("{name}.{apex}") };
    let leads_there = |tunnel: &&crate::config::Tunnel| {
        tunnel.hostname.as_ref().is_some_and(|hostname| full_name(hostname, apex.as_str()) == full)
    };
    match config.tunnels.iter().find(leads_there) {
        Some(tunnel) => format!("{full} -> {}", tunnel.target),
        None => format!("{full} (unused)"),
    }
}

/// What a reply means that is not the one hoped for.
fn failure(reply: &Reply<'_>) -> ControlError {
    if let Reply::Refused { code } = reply { ControlError::Refused(*code) } else { ControlError::Kind }
}

/// The greeting has number 1.
const FIRST_ID: u32 = 2;

/// Addresses of one name that are tried at once.
const ADDRESSES: usize = 8;

/// Head start of each address before the next, as RFC 8305 §5 recommends: a machine with a broken IPv6 loses a moment,
/// not a timeout.
const STAGGER: Duration = Duration::from_millis(250);
