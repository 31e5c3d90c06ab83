//! The child: a node's store that takes calls as lines on standard input and answers on standard output.
//!
//! | call | answer |
//! |---|---|
//! | `ID put KEY VALUE` | `ID done` |
//! | `ID delete KEY` | `ID done` |
//! | `ID add KEY CHILD` | `ID done` |
//! | `ID remove KEY CHILD` | `ID done` |
//! | `ID lease KEY OWNER` | `ID done TOKEN`, or `ID held` |
//! | `ID read KEY` | `ID value VALUE`, or `ID absent` |
//! | `ID list KEY` | `ID set CHILD…` |
//!
//! Any call may be answered by `ID refused WHY`. The first line is `ready`. It ends with its input.

use std::{
    error::Error as StdError,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use specter_server::{
    config::SyncPolicy,
    identity::{Credentials, tls},
    node::{Error, Handle, Key, Node, Opening, Tuning, limits},
    shutdown::Shutdown,
    transport::peers::Peers,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{Semaphore, mpsc},
};

/// Calls that are under way at a time: below what the store lets wait.
const CALLS: usize = limits::QUEUE / 2;

/// How long a lease is held: longer than any test runs.
const LEASE: Duration = limits::LEASE_TTL_MAX;

/// Runs a node until its input ends.
///
/// # Errors
/// What the node says if it does not start.
pub fn run(data_dir: &Path, certs: &Path, sync: SyncPolicy) -> Result<(), Box<dyn StdError>> {
    // Twice in one process it is not called; then there is a log already.
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).try_init().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(data_dir, certs, sync))
}

async fn serve(data_dir: &Path, certs: &Path, sync: SyncPolicy) -> Result<(), Box<dyn StdError>> {
    let credentials = Credentials::from_directory(certs)?;
    let tasks = Shutdown::new();
    let (inbox, arrivals) = mpsc::channel(1);
    let peers = Peers::start(Vec::new(), Arc::new(tls::dial(&credentials)?), inbox, tasks.clone())?;
    let opening = Opening {
        data_dir,
        cluster: credentials.cluster_id.0,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        seeds: Vec::new(),
        founds: true,
        tuning: Tuning::with(sync),
    };
    let node = Node::open(opening, peers, arrivals, &tasks)?;
    say("ready")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let room = Arc::new(Semaphore::new(CALLS));
    while let Some(line) = lines.next_line().await? {
        let (store, place) = (node.handle(), room.clone().acquire_owned().await?);
        tasks.spawn(async move {
            // Whoever does not read the answers any more is gone.
            if let Some((id, call)) = line.split_once(' ') {
                say(&format!("{id} {}", answer(&store, call).await)).ok();
            }
            drop(place);
        });
    }
    node.stop().await;
    tasks.finish(Duration::from_secs(1)).await;
    Ok(())
}

/// Writes a line at once and as a whole.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

async fn answer(store: &Handle, call: &str) -> String {
    let mut parts = call.splitn(3, ' ');
    let (verb, key, rest) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let key = Key::new(key.unwrap_or_default());
    let answered = match verb {
        Some("put") => store.put(&key, rest, None).await.map(|()| "done".to_owned()),
        Some("delete") => store.delete(&key).await.map(|()| "done".to_owned()),
        Some("add") => store.set_append(&key, rest).await.map(|_| "done".to_owned()),
        Some("remove") => store.set_remove(&key, rest).await.map(|_| "done".to_owned()),
        Some("lease") => match store.lease_acquire(&key, rest, 1, LEASE).await {
            Ok(lease) => Ok(format!("done {:?}", lease.token)),
            Err(Error::Conflict) => Ok("held".to_owned()),
            Err(error) => Err(error),
        },
        Some("read") => store.get(&key).await.map(|value| match value {
            Some(value) => format!("value {}", String::from_utf8_lossy(&value)),
            None => "absent".to_owned(),
        }),
        Some("list") => store.set_list(&key).await.map(|children| {
            let children: Vec<_> = children.iter().map(|child| String::from_utf8_lossy(child).into_owned()).collect();
            format!("set {}", children.join(" "))
        }),
        Some(_) | None => Ok("refused not a call".to_owned()),
    };
    answered.unwrap_or_else(|error| format!("refused {error:?}"))
}
