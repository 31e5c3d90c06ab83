//! Where the nodes of `--join` are: looked up again and again, because DNS may fail when a machine starts, and names may lead
//! elsewhere tomorrow.

use crate::{
    config::Advertise,
    node::{Handle, Neighbours},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};
use tokio::{
    net::lookup_host,
    time::{Instant, sleep, timeout},
};

/// How often names are looked up while this node knows no other, and while it does.
const PAUSE_ALONE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_secs(30);

/// How long one name may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// How long nobody may answer before the log says so, and how often it does.
const GRACE: Duration = Duration::from_secs(10);
const REMINDER: Duration = Duration::from_secs(60);

/// The names, and who is meant when they lead here.
#[derive(Debug)]
pub(super) struct Seeds {
    names: Vec<Advertise>,
    own: Own,
}

/// Where this node is.
#[derive(Debug)]
pub(super) struct Own {
    /// What it tells others, and what it listens on.
    pub(super) addresses: Vec<SocketAddr>,
}

/// What the names lead to at present.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Addresses of others, in order.
    pub(super) addresses: Vec<SocketAddr>,
    /// Names that lead nowhere.
    pub(super) lost: Vec<String>,
}

impl Found {
    /// Whether nobody but this node is named.
    pub(super) fn nobody(&self) -> bool {
        self.addresses.is_empty() && self.lost.is_empty()
    }
}

impl Seeds {
    pub(super) fn new(names: Vec<Advertise>, own: Own) -> Self {
        Self { names, own }
    }

    /// Looks all names up.
    pub(super) async fn look(&self) -> Found {
        let (mut addresses, mut lost) = (BTreeSet::new(), Vec::new());
        for name in &self.names {
            let mut found = match timeout(LOOKUP, lookup_host((name.host.as_str(), name.port))).await {
                Ok(Ok(found)) => found.peekable(),
                Ok(Err(_)) | Err(_) => {
                    lost.push(name.to_string());
                    continue;
                }
            };
            if found.peek().is_none() {
                lost.push(name.to_string());
            }
            addresses.extend(found.filter(|address| !self.own.is(*address)));
        }
        Found { addresses: addresses.into_iter().collect(), lost }
    }

    /// Tells the store where to look for other nodes, as long as it lives, and the log when none answers.
    pub(super) async fn keep_looking(self, store: Handle, mut neighbours: Neighbours) {
        if self.names.is_empty() {
            return;
        }
        let mut silent_since = Instant::now();
        let mut said = None::<Instant>;
        loop {
            let alone = neighbours.borrow_and_update().is_empty();
            tokio::select! {
                () = sleep(if alone { PAUSE_ALONE } else { PAUSE }) => {}
                // The last of the others has gone, or the first has come.
                changed = neighbours.changed() => if changed.is_err() { return },
            }
            if !neighbours.borrow().is_empty() {
                silent_since = Instant::now();
                said = None;
                if alone {
                    continue;
                }
            }
            let found = self.look().await;
            let is_due = said.is_none_or(|said| said.elapsed() >= REMINDER) && silent_since.elapsed() >= GRACE;
            if is_due && !found.nobody() {
                said = Some(Instant::now());
                let unknown = found.lost.join(", ");
                tracing::warn!(
                    addresses = ?found.addresses,
                    unknown,
                    "no node of --join answers; it is tried again: check that one of them runs, and that its address is right"
                );
            }
            store.seeds_are(found.addresses);
        }
    }
}

impl Own {
    fn is(&self, address: SocketAddr) -> bool {
        let any = |own: &&SocketAddr| own.ip().is_unspecified() && own.port() == address.port();
        self.addresses.contains(&address) || (self.addresses.iter().any(|own| any(&own)) && is_local(address.ip()))
    }
}

/// Whether this machine has the address: only then can a socket be bound to it.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str, port: u16) -> Advertise {
        Advertise { host: host.to_owned(), port }
    }

    async fn look(names: &[Advertise], own: &[&str]) -> Found {
        let addresses = own.iter().map(|own| own.parse().expect("an address")).collect();
        Seeds::new(names.to_vec(), Own { addresses }).look().await
    }

    #[tokio::test]
    async fn a_node_that_is_told_to_join_itself_has_nobody_to_join() {
        assert!(look(&[name("127.0.0.1", 8443)], &["127.0.0.1:8443"]).await.nobody());
        assert!(look(&[name("127.0.0.1", 8443)], &["0.0.0.0:8443"]).await.nobody());
        // An address that others are told, though this machine does not have it.
        assert!(look(&[name("192.0.2.1", 443)], &["0.0.0.0:443", "192.0.2.1:443"]).await.nobody());
        assert!(look(&[], &["0.0.0.0:443"]).await.nobody());
    }

    #[tokio::test]
    async fn other_nodes_are_found_beside_names_that_lead_nowhere() {
        let names = [name("127.0.0.1", 1), name("nobody.invalid", 443), name("192.0.2.1", 443)];
        let found = look(&names, &["0.0.0.0:8443"]).await;
        let expected = ["127.0.0.1:1", "192.0.2.1:443"].map(|address| address.parse().expect("an address"));
        assert_eq!(found, Found { addresses: expected.to_vec(), lost: vec!["nobody.invalid:443".to_owned()] });
        assert!(!look(&[name("nobody.invalid", 443)], &["0.0.0.0:443"]).await.nobody());
    }
}
