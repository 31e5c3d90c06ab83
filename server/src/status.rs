//! `specter-server ring status`: what a running node knows of its cluster; `ring recover` is in [`recover`].
//!
//! The node listens on a Unix socket in its data directory, which only its user may open. Whoever connects sends one word, says
//! that nothing follows, and gets one JSON object: the status, as it is before the node does what the word asks for.

pub mod recover;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    link::registry::{Link, Registry},
    node::{self, Handle, RingStatus, SlotStatus, Standing},
    shutdown,
    transport::peers::Peers,
};

/// The socket's name in the data directory.
const SOCKET: &str = "status.sock";

/// What may be asked: only for the status, or also to go on alone with the slots that are stranded in it.
const LOOK: &str = "status";
const GO_ON_ALONE: &str = "go-on-alone";

/// Longest question that is read.
const QUESTION_BYTES: u64 = 32;

/// How long a question may take: whoever has one asks at once, and others wait behind who has none.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

/// How long an answer may take to be written, or to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// After a connection that could not be accepted: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(200);

/// Links that are told of one by one, the oldest first.
const LINKS: usize = 1_000;

/// Longest answer that is read: every slot and every link, with room.
const ANSWER_BYTES: u64 = 16 << 20;

/// Where a node's status comes from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) store: Handle,
    pub(crate) peers: Arc<Peers>,
    pub(crate) registry: Arc<Registry>,
}

/// What the node tells. Names of fields stay as they are: programs read them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Status {
    /// The ring and the slots.
    #[serde(flatten)]
    ring: RingStatus,
    /// How long a round trip takes to each node to which there is a connection, in microseconds.
    rtts: Vec<Rtt>,
    /// How many links there are.
    link_count: usize,
    /// The oldest of them.
    links: Vec<LinkStatus>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Rtt {
    address: SocketAddr,
    rtt_us: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct LinkStatus {
    /// Whose, in hexadecimal.
    client: String,
    address: SocketAddr,
    rtt_us: u64,
    /// How many tunnels it serves.
    tunnels: usize,
    /// Whether there is reason to think that it is dead.
    suspect: bool,
}

impl Source {
    async fn status(&self, goes_on_alone: bool) -> Result<Status, node::Error> {
        let ring = if goes_on_alone { self.store.go_on_alone().await? } else { self.store.ring_status().await? };
        let mut rtts: Vec<Rtt> =
            self.peers.rtts().into_iter().map(|(address, rtt)| Rtt { address, rtt_us: micros(rtt) }).collect();
        rtts.sort_by_key(|rtt| rtt.address);
        let (link_count, links) = self.registry.overview(LINKS);
        let links = links.iter().map(|(link, tunnels)| LinkStatus::of(link, *tunnels)).collect();
        Ok(Status { ring, rtts, link_count, links })
    }
}

impl LinkStatus {
    fn of(link: &Link, tunnels: usize) -> Self {
        Self {
            client: link.client().to_string(),
            address: link.connection().remote_address(),
            rtt_us: micros(link.connection().rtt()),
            tunnels,
            suspect: link.is_suspect(),
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Answers on the socket in `data_dir`, which this process holds. A node whose socket cannot be made serves all the same.
pub(crate) fn serve(data_dir: &Path, source: Source, tasks: &shutdown::Shutdown) {
    match listen(&data_dir.join(SOCKET)) {
        Ok(listener) => {
            let stopping = tasks.token();
            tasks.spawn(async move { stopping.run_until_cancelled(answer(listener, source)).await.unwrap_or(()) });
        }
        Err(error) => warn!(
            %error,
            data_dir = %data_dir.display(),
            "`ring status` will not work: no socket can be made in the data directory; its path may be too long"
        ),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // Left by a process that was killed: the directory is held by this one.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// One after the other: nobody has to wait long, and nobody can ask for more at a time.
async fn answer(listener: UnixListener, source: Source) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "the status could not be told");
                sleep(PAUSE).await;
                continue;
            }
        };
        let tell = async {
            let mut question = String::new();
            let mut limited = (&mut stream).take(QUESTION_BYTES);
            timeout(QUESTION_PATIENCE, limited.read_to_string(&mut question))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
            let goes_on_alone = match question.as_str() {
                LOOK => false,
                GO_ON_ALONE => true,
                _ => return Err(io::Error::other("what was asked is not known to this version")),
            };
            let status = source.status(goes_on_alone).await.map_err(io::Error::other)?;
            let mut text = serde_json::to_vec(&status)?;
            text.push(b'\n');
            stream.write_all(&text).await?;
            stream.shutdown().await
        };
        match timeout(PATIENCE, tell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the status could not be told"),
            Err(_) => debug!("whoever asked for the status does not read it"),
        }
    }
}

/// What `ring status` is told.
#[derive(Debug)]
pub struct Task {
    /// The data directory of the node.
    pub data_dir: PathBuf,
    /// Whether programs read what is printed.
    pub json: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens there.
    #[error(
        "no node answers in the data directory {}; check that it is the --data-dir of a node that runs, and that you are its \
         user",
        data_dir.display()
    )]
    Silent {
        /// The directory.
        data_dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It answers, but not in time or not with a status.
    #[error("the node of the data directory {} gives no status; look at its log, and try again", data_dir.display())]
    Garbled {
        /// The directory.
        data_dir: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The output.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// Asks the node of a data directory and prints what it says.
///
/// # Errors
/// [`StatusError`].
pub fn run(task: &Task, out: &mut dyn Write) -> Result<(), StatusError> {
    let (status, text) = ask(&task.data_dir, LOOK)?;
    print(if task.json { text } else { describe(&status) }, out)
}

/// What the node of a data directory answers: understood, and as it is.
fn ask(data_dir: &Path, question: &str) -> Result<(Status, String), StatusError> {
    let silent = |source| StatusError::Silent { data_dir: data_dir.to_owned(), source };
    let garbled = |source: io::Error| StatusError::Garbled { data_dir: data_dir.to_owned(), source };
    let mut stream = UnixStream::connect(data_dir.join(SOCKET)).map_err(silent)?;
    stream.set_read_timeout(Some(2 * PATIENCE)).map_err(garbled)?;
    stream.write_all(question.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write)).map_err(garbled)?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut text).map_err(garbled)?;
    let status = serde_json::from_str(&text).map_err(|error| garbled(error.into()))?;
    Ok((status, text))
}

fn print(text: String, out: &mut dyn Write) -> Result<(), StatusError> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// For people: the worst first.
fn describe(status: &Status) -> String {
    let Status { ring, rtts, link_count, links } = status;
    let mut text = String::new();
    // Writing to a string does not fail.
    let mut line =
        |arguments: std::fmt::Arguments<'_>| text.write_fmt(arguments).and_then(|()| text.write_char('\n')).ok();
    let state = match (ring.joined, ring.leaving) {
        (_, true) => "is about to go",
        (true, false) => "is a member of the ring",
        (false, false) => "has not joined the ring yet",
    };
    line(format_args!("node {} at {} {state}", short(&ring.node), ring.address));

    for (slots, members) in by_members(ring.slots.iter().filter(|slot| slot.stranded)) {
        line(format_args!("stranded, because too few of {members} live: slots {slots}; see `ring recover`"));
    }
    let short_of = ring.slots.iter().filter(|slot| slot.under_replicated);
    let changing = ring.slots.iter().filter(|slot| slot.changing).count();
    let unled = ring.slots.iter().filter(|slot| slot.leader.is_none()).count();
    let led = ring.slots.iter().filter(|slot| slot.leader.as_ref() == Some(&ring.node)).count();
    for (slots, members) in by_members(short_of.clone()) {
        line(format_args!("too few replicas, on {members} alone: slots {slots}"));
    }
    line(format_args!(
        "slots: {} of {} kept here, {led} led, {} with too few replicas, {changing} changing, {unled} without a leader",
        ring.slots.len(),
        ring.slot_count.unwrap_or(0),
        short_of.count(),
    ));

    line(format_args!("other nodes: {}", ring.members.len()));
    for member in &ring.members {
        let rtt = rtts.iter().find(|rtt| rtt.address == member.address).map(|rtt| rtt.rtt_us);
        let standing = match member.standing {
            Standing::Alive => "alive",
            Standing::Leaving => "leaving",
            Standing::Silent => "silent",
        };
        line(format_args!("  {} at {} {standing}{}", short(&member.node), member.address, in_ms(rtt)));
    }
    line(format_args!("links: {link_count}"));
    for link in links {
        let suspect = if link.suspect { ", suspect" } else { "" };
        line(format_args!(
            "  {} at {}, {} tunnels{suspect}{}",
            short(&link.client),
            link.address,
            link.tunnels,
            in_ms(Some(link.rtt_us)),
        ));
    }
    text
}

/// Slots that the same nodes keep, in one line: `0-4 7`, and the nodes.
fn by_members<'a>(slots: impl Iterator<Item = &'a SlotStatus>) -> BTreeMap<String, String> {
    let mut ranges: BTreeMap<Vec<&str>, Vec<(u16, u16)>> = BTreeMap::new();
    for slot in slots {
        let ranges = ranges.entry(slot.members.iter().map(|member| short(member)).collect()).or_default();
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(slot.slot) => *last = slot.slot,
            Some(_) | None => ranges.push((slot.slot, slot.slot)),
        }
    }
    let range = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let line = |(members, ranges): (Vec<&str>, Vec<_>)| {
        (ranges.iter().map(range).collect::<Vec<_>>().join(" "), members.join(" "))
    };
    ranges.into_iter().map(line).collect()
}

/// Enough of a name to tell nodes and clients apart, as the log has it.
fn short(name: &str) -> &str {
    name.get(..16).unwrap_or(name)
}

fn in_ms(rtt_us: Option<u64>) -> String {
    rtt_us.map(|us| format!(", round trip {}.{:03} ms", us / 1000, us % 1000)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Member;

    pub(super) fn status() -> Status {
        let slot = |slot, under_replicated| SlotStatus {
            slot,
            leader: Some("aa".to_owned()),
            members: vec!["aa".to_owned(), "bb".to_owned()],
            under_replicated,
            changing: false,
            stranded: slot == 7,
        };
        let address = "127.0.0.1:2".parse().expect("an address");
        Status {
            ring: RingStatus {
                node: "aa".to_owned(),
                address: "127.0.0.1:1".parse().expect("an address"),
                joined: true,
                leaving: false,
                slot_count: Some(8),
                replicas: Some(3),
                members: vec![Member { node: "bb".to_owned(), address, standing: Standing::Silent }],
                slots: vec![slot(7, true), slot(1, false)],
            },
            rtts: vec![Rtt { address, rtt_us: 1042 }],
            link_count: 1,
            links: vec![LinkStatus { client: "cc".to_owned(), address, rtt_us: 7, tunnels: 2, suspect: true }],
        }
    }

    #[test]
    fn what_is_wrong_is_told_first() {
        let text = describe(&status());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "node aa at 127.0.0.1:1 is a member of the ring");
        assert_eq!(lines[1], "stranded, because too few of aa bb live: slots 7; see `ring recover`");
        assert_eq!(lines[2], "too few replicas, on aa bb alone: slots 7");
        assert_eq!(lines[3], "slots: 2 of 8 kept here, 2 led, 1 with too few replicas, 0 changing, 0 without a leader");
        assert_eq!(lines[5], "  bb at 127.0.0.1:2 silent, round trip 1.042 ms");
        assert_eq!(lines[7], "  cc at 127.0.0.1:2, 2 tunnels, suspect, round trip 0.007 ms");
    }

    #[test]
    fn slots_with_the_same_members_are_told_together() {
        let slot = |slot, members: &[&str]| SlotStatus {
            slot,
            leader: None,
            members: members.iter().map(|member| (*member).to_owned()).collect(),
            under_replicated: true,
            changing: false,
            stranded: false,
        };
        let slots = [slot(1, &["a"]), slot(2, &["a"]), slot(3, &["a", "b"]), slot(4, &["a"]), slot(u16::MAX, &["a"])];
        let told: Vec<_> = by_members(slots.iter()).into_iter().collect();
        let expected =
            [("1-2 4 65535", "a"), ("3", "a b")].map(|(slots, members)| (slots.to_owned(), members.to_owned()));
        assert_eq!(told, expected);
    }

    #[test]
    fn the_names_of_its_fields_do_not_change_by_accident() {
        let text = serde_json::to_string(&status()).expect("JSON");
        let expected = concat!(
            r#"{"node":"aa","address":"127.0.0.1:1","joined":true,"leaving":false,"slot_count":8,"replicas":3,"#,
            r#""members":[{"node":"bb","address":"127.0.0.1:2","standing":"silent"}],"#,
            r#""slots":[{"slot":7,"leader":"aa","members":["aa","bb"],"under_replicated":true,"changing":false,"#,
            r#""stranded":true},{"slot":1,"leader":"aa","members":["aa","bb"],"under_replicated":false,"changing":false,"#,
            r#""stranded":false}],"#,
            r#""rtts":[{"address":"127.0.0.1:2","rtt_us":1042}],"link_count":1,"#,
            r#""links":[{"client":"cc","address":"127.0.0.1:2","rtt_us":7,"tunnels":2,"suspect":true}]}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Status>(&text).expect("a status"), status());
    }
}
