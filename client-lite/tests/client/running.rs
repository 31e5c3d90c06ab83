//! `run_tunnel` in the test's own process.

use crate::fake_node::{DEADLINE, FakeNode};
use client_lite::{Event, TunnelError, TunnelOptions, run_tunnel};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// A running client on a configuration in its own folder.
pub(crate) struct Client {
    pub(crate) folder: TempDir,
    pub(crate) events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), TunnelError>>,
}

impl Client {
    /// Starts on a text whose apex and CA are the node's.
    pub(crate) fn start(node: &FakeNode, tunnels: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), &node.ca_pem).unwrap();
        let text = format!("# mine\nversion: 2\napex: localhost:{} # near\ncaFile: ca.crt\n{tunnels}", node.port);
        fs::write(folder.path().join("client.yaml"), text).unwrap();
        Self::start_in(folder)
    }

    pub(crate) fn start_in(folder: TempDir) -> Self {
        let (sender, events) = mpsc::channel(512);
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(run_tunnel(TunnelOptions::new(folder.path().join("client.yaml")), sender, stop.clone()));
        Self { folder, events, stop, task }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("client.yaml")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The next event that tells more than a number of links.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            match timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("the client runs") {
                Event::Links { .. } => {}
                event => return event,
            }
        }
    }

    /// Waits until this many links serve.
    pub(crate) async fn links(&mut self, count: usize) {
        loop {
            let event = timeout(DEADLINE, self.events.recv()).await.expect("an event in time");
            if let Event::Links { up, .. } = event.expect("the client runs")
                && up == count
            {
                return;
            }
        }
    }

    pub(crate) async fn published(&mut self) -> (String, String) {
        loop {
            if let Event::Published { url, target } = self.event().await {
                return (url, target);
            }
        }
    }

    pub(crate) async fn stop(self) -> (TempDir, Result<(), TunnelError>) {
        self.stop.cancel();
        let outcome = timeout(DEADLINE, self.task).await.expect("the client stops").unwrap();
        (self.folder, outcome)
    }
}
