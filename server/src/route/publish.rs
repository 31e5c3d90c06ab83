//! Claims, checks and releases hostnames for clients.

use super::{
    announce::Announcer,
    key::{self, Registration},
};
use crate::{
    link::{Directory, registry::Registry},
    node::{Error, Handle},
    shutdown::Shutdown,
    transport::relay::Relays,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use ring::rand::{SecureRandom, SystemRandom};
use specter_wire::{error::ErrorCode, id::ClientId, name::Hostname};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The names in the store. Calls for many names go to the store together and are committed together.
pub struct Names {
    store: Handle,
    announcer: Announcer,
    random: SystemRandom,
}

/// Hostnames that one identity may own.
const HOSTNAMES_PER_CLIENT: usize = 256;

/// Words in a hostname: 7,758 to the power of 5 names, 64 bits.
const WORDS_PER_NAME: usize = 5;

/// How often a taken name is drawn again. Two in a row are as good as impossible.
const DRAWS: usize = 3;

/// EFF's large word list for dice (CC BY 3.0 US), without hyphenated words and some that nobody wants to be named by,
/// one a line.
static WORDS: &str = include_str!("words.txt");

impl Names {
    /// The names in `store`. Tasks of `shutdown` tell other nodes which of them the links of `registry` serve: those nodes
    /// dial this one at `node`.
    pub fn new(
        store: Handle,
        registry: Arc<Registry>,
        relays: Arc<Relays>,
        node: SocketAddr,
        shutdown: &Shutdown,
    ) -> Self {
        let announcer = Announcer::start(&store, registry, relays, node, shutdown);
        Self { store, announcer, random: SystemRandom::new() }
    }

    /// Waits until every hostname that links here serve is served by another node, too.
    pub async fn served_elsewhere(&self) {
        self.announcer.served_elsewhere().await;
    }

    /// Tells other nodes that no link here serves anything any more, before this node goes away.
    pub async fn withdraw(&self, patience: Duration) {
        self.announcer.withdraw(patience).await;
    }

    async fn list(&self, client: ClientId) -> Result<Vec<Hostname>, ErrorCode> {
        let children = self.store.set_list(&key::hostnames_of(client)).await.map_err(code)?;
        let mut names: Vec<Hostname> = children
            .iter()
            .filter_map(|child| std::str::from_utf8(child).ok())
            .filter_map(|text| Hostname::parse(text).ok())
            .collect();
        names.sort();
        Ok(names)
    }

    async fn claim_one(&self, client: ClientId) -> Result<Hostname, ErrorCode> {
        for _ in 0..DRAWS {
            let hostname = draw(&self.random)?;
            let set = key::hostnames_of(client);
            self.store.set_append(&set, hostname.as_str()).await.map_err(code)?;
            match self.register(client, &hostname).await {
                Ok(()) => return Ok(hostname),
                Err(ErrorCode::NotOwner) => {
                    self.store.set_remove(&set, hostname.as_str()).await.map_err(code)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(ErrorCode::Unavailable)
    }

    /// Makes `client` the owner of a name that has none; the same again is no error.
    async fn register(&self, client: ClientId, hostname: &Hostname) -> Result<(), ErrorCode> {
        let registration = Registration { owner: client };
        match self.store.compare_and_swap(&key::hostname(hostname), None, Some(registration.to_bytes())).await {
            Ok(_) => Ok(()),
            Err(Error::Conflict) => self.check(client, hostname).await,
            Err(error) => Err(code(error)),
        }
    }

    /// Whether `client` owns the name.
    async fn check(&self, client: ClientId, hostname: &Hostname) -> Result<(), ErrorCode> {
        match self.store.get(&key::hostname(hostname)).await.map_err(code)? {
            Some(stored) if Registration::from_bytes(&stored) == Some(Registration { owner: client }) => Ok(()),
            Some(_) | None => Err(ErrorCode::NotOwner),
        }
    }

    async fn authorize_one(&self, client: ClientId, hostname: &Hostname) -> Result<(), ErrorCode> {
        let key = key::hostname(hostname);
        let stored = match self.store.get(&key).await {
            // A client whose link broke must find a place also while the store has no majority. An owner changes only when
            // a name is given back, so what any replica has is good enough to say yes, and never to say no.
            Err(Error::Unavailable) => match self.store.hint_get(&key).await {
                Ok(Some(stored)) if Registration::from_bytes(&stored) == Some(Registration { owner: client }) => {
                    Some(stored)
                }
                Ok(_) | Err(_) => return Err(ErrorCode::Unavailable),
            },
            outcome => outcome.map_err(code)?,
        };
        match stored {
            Some(stored) if Registration::from_bytes(&stored) == Some(Registration { owner: client }) => Ok(()),
            Some(_) => Err(ErrorCode::NotOwner),
            None => {
                // A claim that was cut short left the name in the client's set only.
                let set = key::hostnames_of(client);
                if self.store.set_contains(&set, hostname.as_str()).await.map_err(code)? {
                    self.register(client, hostname).await
                } else {
                    Err(ErrorCode::NotOwner)
                }
            }
        }
    }

    async fn release_one(&self, client: ClientId, hostname: &Hostname) -> Result<(), ErrorCode> {
        let key = key::hostname(hostname);
        match self.store.get(&key).await.map_err(code)? {
            Some(stored) if Registration::from_bytes(&stored) != Some(Registration { owner: client }) => {
                return Err(ErrorCode::NotOwner);
            }
            Some(stored) => match self.store.compare_and_swap(&key, Some(stored), None).await {
                Ok(_) => {}
                Err(Error::Conflict) => return Err(ErrorCode::Unavailable),
                Err(error) => return Err(code(error)),
            },
            None => {}
        }
        let was_listed = self.store.set_remove(&key::hostnames_of(client), hostname.as_str()).await.map_err(code)?;
        if was_listed { Ok(()) } else { Err(ErrorCode::NotOwner) }
    }
}

impl Directory for Names {
    fn hostnames(
        &self,
        client: ClientId,
        after: Option<Hostname>,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<Hostname>, bool), ErrorCode>> {
        async move {
            let mut names = self.list(client).await?;
            if let Some(after) = after {
                names.retain(|name| *name > after);
            }
            let more = names.len() > limit;
            names.truncate(limit);
            Ok((names, more))
        }
        .boxed()
    }

    fn claim(&self, client: ClientId, count: usize) -> BoxFuture<'_, Result<Vec<Hostname>, ErrorCode>> {
        async move {
            if self.list(client).await?.len() + count > HOSTNAMES_PER_CLIENT {
                return Err(ErrorCode::Limit);
            }
            join_all((0..count).map(|_| self.claim_one(client))).await.into_iter().collect()
        }
        .boxed()
    }

    fn authorize(&self, client: ClientId, hostnames: Vec<Hostname>) -> BoxFuture<'_, Vec<Option<ErrorCode>>> {
        async move {
            let checks = hostnames.iter().map(|hostname| self.authorize_one(client, hostname));
            join_all(checks).await.into_iter().map(Result::err).collect()
        }
        .boxed()
    }

    fn announce(&self, hostnames: Vec<Hostname>) -> BoxFuture<'_, ()> {
        self.announcer.announce(hostnames).boxed()
    }

    fn release(&self, client: ClientId, hostnames: Vec<Hostname>) -> BoxFuture<'_, Vec<Option<ErrorCode>>> {
        async move {
            let releases = hostnames.iter().map(|hostname| self.release_one(client, hostname));
            join_all(releases).await.into_iter().map(Result::err).collect()
        }
        .boxed()
    }
}

/// Draws a name of [`WORDS_PER_NAME`] words.
fn draw(random: &dyn SecureRandom) -> Result<Hostname, ErrorCode> {
    let words: Vec<&str> = WORDS.lines().collect();
    let mut name = String::new();
    for index in 0..WORDS_PER_NAME {
        let mut bytes = [0; 8];
        random.fill(&mut bytes).map_err(|_| ErrorCode::Internal)?;
        if index > 0 {
            name.push('-');
        }
        // The bias of the remainder is 2^-51: nobody guesses a name better for it.
        name.push_str(words[(u64::from_le_bytes(bytes) % words.len() as u64) as usize]);
    }
    Hostname::parse(&name).map_err(|_| ErrorCode::Internal)
}

/// What a client is told about a failure of the store.
fn code(error: Error) -> ErrorCode {
    match error {
        Error::TooLarge { .. } => ErrorCode::Limit,
        Error::Draining => ErrorCode::Draining,
        Error::Conflict
        | Error::Expired
        | Error::StaleFence
        | Error::Unavailable
        | Error::Unknown
        | Error::ReadOnly => ErrorCode::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::alone;

    const ANN: ClientId = ClientId([1; 32]);
    const BOB: ClientId = ClientId([2; 32]);

    async fn with_names<F: AsyncFnOnce(&Names)>(test: F) {
        let folder = tempfile::tempdir().expect("folder");
        let node = alone(folder.path());
        let tasks = Shutdown::new();
        let relays = super::super::tests::relays(&tasks);
        test(&Names::new(node.handle(), Arc::default(), relays, SocketAddr::from(([127, 0, 0, 1], 1)), &tasks)).await;
        node.stop().await;
    }

    #[tokio::test]
    async fn claimed_names_are_the_claimants_alone() {
        with_names(async |names| {
            let claimed = names.claim(ANN, 64).await.expect("claimed");
            assert_eq!(claimed.len(), 64);
            let (listed, more) = names.hostnames(ANN, None, 63).await.expect("listed");
            assert_eq!((listed.len(), more), (63, true));
            let (rest, more) = names.hostnames(ANN, listed.last().cloned(), 63).await.expect("listed");
            assert_eq!((rest.len(), more), (1, false));
            assert!(names.authorize(ANN, claimed.clone()).await.iter().all(Option::is_none));
            let refused = names.authorize(BOB, claimed).await;
            assert!(refused.iter().all(|answer| *answer == Some(ErrorCode::NotOwner)));
        })
        .await;
    }

    #[tokio::test]
    async fn a_name_nobody_owns_cannot_be_published() {
        with_names(async |names| {
            let wished = Hostname::parse("www").expect("name");
            assert_eq!(names.authorize(ANN, vec![wished.clone()]).await, [Some(ErrorCode::NotOwner)]);
            assert_eq!(names.release(ANN, vec![wished]).await, [Some(ErrorCode::NotOwner)]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_released_name_is_gone_and_only_its_owner_can_release_it() {
        with_names(async |names| {
            let claimed = names.claim(ANN, 1).await.expect("claimed");
            assert_eq!(names.release(BOB, claimed.clone()).await, [Some(ErrorCode::NotOwner)]);
            assert_eq!(names.release(ANN, claimed.clone()).await, [None]);
            assert_eq!(names.authorize(ANN, claimed).await, [Some(ErrorCode::NotOwner)]);
            assert!(names.hostnames(ANN, None, 64).await.expect("listed").0.is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn a_claim_cut_short_by_a_crash_is_finished_by_publishing() {
        with_names(async |names| {
            let hostname = Hostname::parse("half-way").expect("name");
            names.store.set_append(&key::hostnames_of(ANN), hostname.as_str()).await.expect("set");
            assert_eq!(names.authorize(ANN, vec![hostname.clone()]).await, [None]);
            assert_eq!(names.authorize(BOB, vec![hostname]).await, [Some(ErrorCode::NotOwner)]);
        })
        .await;
    }

    #[tokio::test]
    async fn one_identity_cannot_claim_without_end() {
        with_names(async |names| {
            for _ in 0..HOSTNAMES_PER_CLIENT / 64 {
                names.claim(ANN, 64).await.expect("claimed");
            }
            assert_eq!(names.claim(ANN, 1).await, Err(ErrorCode::Limit));
        })
        .await;
    }

    #[test]
    fn drawn_names_are_five_words_in_one_label() {
        let random = SystemRandom::new();
        for _ in 0..50 {
            let name = draw(&random).expect("drawn");
            assert!(name.is_label());
            assert_eq!(name.as_str().split('-').count(), WORDS_PER_NAME);
        }
        let longest = WORDS.lines().map(str::len).max().expect("words");
        assert!(longest * WORDS_PER_NAME + WORDS_PER_NAME - 1 <= 63);
        assert_eq!(WORDS.lines().count(), 7_758);
    }
}
