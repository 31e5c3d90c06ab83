//! The client of `dev`: the same code as `client-lite tunnel`, on a thread and runtime of its own.

use std::{future::Future, io, path::PathBuf, thread, time::Duration};

use client_lite::{Event, TunnelError, TunnelOptions, run_tunnel};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A running client.
#[derive(Debug)]
pub(super) struct Client {
    stop: CancellationToken,
    ended: oneshot::Receiver<Result<(), TunnelError>>,
    /// Keeps the client's events flowing.
    _events: mpsc::Receiver<Event>,
}

/// A tunnel that visitors reach.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) url: String,
    pub(super) target: String,
}

impl Client {
    /// Starts the client and waits until its first tunnel is published.
    pub(super) async fn start(config: PathBuf) -> Result<(Self, Published), ClientError> {
        let stop = CancellationToken::new();
        let (sender, mut events) = mpsc::channel(EVENTS);
        let (report, mut ended) = oneshot::channel();
        let token = stop.clone();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Thread)?;
        let run = move || {
            let result = runtime.block_on(run_tunnel(TunnelOptions::new(config), sender, token));
            report.send(result).ok();
        };
        thread::Builder::new().name("client".to_owned()).spawn(run).map_err(ClientError::Thread)?;

        let published = async {
            loop {
                match events.recv().await {
                    Some(Event::Published { url, target, .. }) => return Some(Published { url, target }),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        match timeout(PATIENCE, published).await {
            Ok(Some(published)) => {
                events.close();
                Ok((Self { stop, ended, _events: events }, published))
            }
            Ok(None) => match (&mut ended).await {
                Ok(Err(error)) => Err(ClientError::Tunnel(error)),
                Ok(Ok(())) | Err(_) => Err(ClientError::Ended),
            },
            Err(_) => {
                stop.cancel();
                Err(ClientError::Slow)
            }
        }
    }

    /// Ends the client in good order when awaited; dropped, it ends as well.
    pub(super) fn stop(self) -> impl Future<Output = ()> {
        let guard = self.stop.drop_guard();
        async move {
            drop(guard);
            if let Ok(Err(error)) = self.ended.await {
                error!(%error, "the client failed");
            }
        }
    }
}

/// Why nothing is published.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No thread or runtime.
    #[error("the client's thread cannot be started")]
    Thread(#[source] io::Error),
    /// The client says why.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// It ended without a word.
    #[error("the client ended before it published anything; start again with --log debug to see why")]
    Ended,
    /// The node did not take it.
    #[error("the client published nothing within {} s; start again with --log debug to see why", PATIENCE.as_secs())]
    Slow,
}

/// Events that may wait.
const EVENTS: usize = 16;

/// How long the first tunnel may take; it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(20);
