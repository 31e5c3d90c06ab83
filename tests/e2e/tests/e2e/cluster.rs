use e2e::{
    Client, Node, Process, binary,
    node::{RingStatus, run_command},
    process, soon,
    target::{self, Target},
    visit::{self, get},
};
use http::StatusCode;
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    process::Command,
    sync::Semaphore,
};

/// Waits until a node knows so many others to be alive, and every slot that it keeps has as many replicas as it should.
async fn settled(node: &Node, others: usize) -> RingStatus {
    node.status_when("its ring whole", |status| {
        let alive = status.members.iter().filter(|member| member.standing == "alive").count();
        alive == others && status.slots.iter().all(|slot| !slot.under_replicated && !slot.changing)
    })
    .await
}

#[tokio::test]
async fn three_nodes_are_one_ring_and_each_tells_how_it_is() {
    let target = Target::http().await;
    let first = Node::start().await;
    let (second, third) = tokio::join!(first.another(), first.another());
    let client = Client::publish_one(&first, &target.url()).await;
    for node in [&first, &second, &third] {
        let status = settled(node, 2).await;
        assert!(status.joined && !status.leaving && status.replicas == Some(3), "{status:?}");
        assert_eq!(status.slots.len(), usize::from(status.slot_count.expect("known")), "each keeps every slot");
        assert_eq!(status.rtts.len(), 2, "{status:?}");
    }
    let links = first.status_when("its link", |status| status.link_count > 0).await;
    assert_eq!(links.links[0].tunnels, 1);

    // Whatever is sent there harms nothing, nor does one who connects and does not read.
    let socket = first.folder().join("data/status.sock");
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    let mut held = Vec::new();
    for garbage in [&b"\0\xff\xfe"[..], b"GET / HTTP/1.1\r\n\r\n", b"{", b""] {
        let mut stream = UnixStream::connect(&socket).await.expect("the node listens");
        // It may be closed already: nothing is read.
        let _ = stream.write_all(garbage).await;
        held.push(stream);
    }
    let data = first.folder().join("data").display().to_string();
    let told = e2e::node::server(&["ring", "status", "--data-dir", &data]).await;
    let text = process::stdout(&told);
    assert!(text.contains("is a member of the ring") && text.contains("other nodes: 2"), "{text}");
    assert!(text.contains("0 with too few replicas") && text.contains("round trip"), "{text}");
    let config = first.folder().join("server.toml").display().to_string();
    let told = e2e::node::server(&["ring", "status", "--json", "--config", &config]).await;
    assert!(process::stdout(&told).starts_with('{'), "{}", process::stderr(&told));

    // One that died is told of, in words for people, too.
    let mut third = third;
    third.process.kill().await;
    first.status_when("that one is silent", |status| status.members.iter().any(|one| one.standing == "silent")).await;
    settled(&first, 1).await;
    drop((client, second));
}

#[tokio::test]
async fn status_of_a_node_that_does_not_run_is_one_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().display().to_string();
    let told = e2e::node::server(&["ring", "status", "--data-dir", &data]).await;
    let complaint = process::stderr(&told);
    assert!(
        !told.status.success() && complaint.contains("no node answers") && complaint.lines().count() == 1,
        "{complaint}"
    );
}

#[tokio::test]
async fn a_node_whose_seed_is_not_there_waits_for_it_and_says_so() {
    // The seed's port is kept free for it.
    let mut seed = Node::start().await;
    seed.process.kill().await;
    let mut waiting = seed.prepare_another(&seed.address.to_string()).await;
    waiting.1.args(["--join", "nobody.invalid:443"]);
    let waiting = Node::from_command(waiting.1, waiting.0, "localhost").await;
    let line = waiting.process.logged("that nobody answers", |line| line.contains("no node of --join answers")).await;
    assert!(line.contains("nobody.invalid:443") && line.contains(&seed.address.to_string()), "{line}");
    seed.start_again().await;
    settled(&waiting, 1).await;
    settled(&seed, 1).await;
}

#[tokio::test]
async fn a_seed_that_is_told_to_join_itself_starts_again_with_the_same_command() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let folder = tempfile::tempdir().expect("a temporary folder");
    e2e::node::pki_init(&folder.path().join("certs")).await;
    let command = |folder: &std::path::Path| {
        let mut command = run_command(folder, "localhost", port, 0);
        command.args(["--join", &format!("localhost:{port}")]);
        command
    };
    let start = command(folder.path());
    let mut seed = Node::from_command(start, folder, "localhost").await;
    let other = seed.another().await;
    settled(&other, 1).await;
    for _ in 0..2 {
        seed.process.kill().await;
        seed.process = Process::start(command(seed.folder()));
        seed.process.line("that it is ready", |line| line == "ready").await;
        settled(&seed, 1).await;
        settled(&other, 1).await;
    }
}

#[tokio::test]
async fn a_node_finds_the_others_again_without_being_told_and_though_a_name_leads_nowhere() {
    let first = Node::start().await;
    let mut second = first.another().await;
    settled(&first, 1).await;
    settled(&second, 1).await;
    for more in [&[][..], &["--join", "nobody.invalid:443"]] {
        second.process.kill().await;
        let mut command = run_command(second.folder(), "localhost", second.port(), second.http.port());
        command.args(more);
        second.process = Process::start(command);
        second.process.line("that it is ready", |line| line == "ready").await;
        settled(&second, 1).await;
        settled(&first, 1).await;
    }
}

#[tokio::test]
async fn a_node_that_drains_ends_what_it_began_and_begins_nothing_new() {
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let target = Target::http1(move |request| {
        let gate = opened.clone();
        async move {
            if request.uri().path() == "/slow" {
                let _permit = gate.acquire().await.expect("never closed");
            }
            target::answer(StatusCode::OK, "done")
        }
    })
    .await;
    let mut node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let host = client.host();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();

    let mut slow = visit::tls(&node, host, &[b"http/1.1"]).await;
    slow.write_all(&get("/slow")).await.expect("the node reads");
    let mut kept = visit::tls(&node, host, &[b"http/1.1"]).await;
    kept.write_all(&get("/")).await.expect("the node reads");
    assert!(!answer(&mut kept).await.contains("connection: close"));
    let unused = visit::tls(&node, host, &[b"http/1.1"]).await;
    soon("the slow request to reach the target", async {
        while target.requests() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    node.process.signal("HUP").await;
    node.process.logged("that SIGHUP changes nothing", |line| line.contains("SIGHUP changes nothing")).await;
    node.process.signal("TERM").await;
    client.process.logged("that the node goes away", |line| line.contains("goes away")).await;
    // Visitors who were there are still answered, and told not to ask again here.
    let mut unused = unused;
    for visitor in [&mut kept, &mut unused] {
        visitor.write_all(&get("/")).await.expect("the node reads");
    }
    for visitor in [&mut kept, &mut unused] {
        assert!(answer(visitor).await.contains("connection: close"));
    }
    // One who comes while the listener closes is told so by the kernel only when he asks again, a second later.
    soon("new visitors to be refused", async { while TcpStream::connect(node.address).await.is_ok() {} }).await;

    gate.add_permits(1);
    let answer = answer(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    assert_eq!(node.process.ended().await.code(), Some(0));
}

/// Reads an answer whose body is `done`.
async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"done") {
        let size = soon("an answer", stream.read_buf(&mut text)).await.expect("it can be read");
        assert!(size > 0, "cut off after {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn nodes_stop_one_after_the_other_and_hand_over_what_they_keep() {
    let target = Target::http().await;
    let first = Node::start().await;
    let (second, mut third) = tokio::join!(first.another(), first.another());
    let client = Client::publish_one(&second, &target.url()).await;
    settled(&third, 2).await;
    let began = Instant::now();
    third.process.signal("TERM").await;
    let status = third.process.ended_within(Duration::from_secs(30)).await;
    eprintln!("a node of three with nothing in progress ended after {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0));
    settled(&first, 1).await;
    settled(&second, 1).await;
    third.start_again().await;
    settled(&third, 2).await;
    let Some(answer) = get(&second, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// `dev --nodes 3`: its process, where its nodes are, and the others' process ids.
async fn dev(folder: &std::path::Path, more: &[&str]) -> (Process, Vec<SocketAddr>, Vec<u32>, String) {
    let mut command = Command::new(binary::specter_server());
    command.args(["dev", "--port", "0", "--http-port", "0", "--data-dir"]).arg(folder.join("dev")).args(more);
    let process = Process::start(command);
    let url = process.line("its URL", |line| line.starts_with("https://")).await;
    let (mut addresses, mut pids) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let start = format!("node {number}  localhost:");
        let line = process.line("its nodes", |line| line.starts_with(&start)).await;
        let mut words = line[start.len()..].split_whitespace();
        let port: u16 = words.next().expect("a port").parse().expect("a port");
        addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
        pids.extend(words.last().and_then(|word| word.parse::<u32>().ok()));
    }
    (process, addresses, pids, url)
}

async fn gone(pid: u32) {
    let path = format!("/proc/{pid}/stat");
    soon("a node to end", async {
        // A process that ended and that nobody asked about is a zombie.
        while fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dev_runs_three_nodes_of_which_one_may_be_killed_and_starts_again_on_the_same_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut process, addresses, pids, url) = dev(folder.path(), &["--nodes", "3"]).await;
    assert_eq!((addresses.len(), pids.len()), (3, 2));
    for address in &addresses {
        TcpStream::connect(address).await.expect("every node listens");
    }
    let data = folder.path().join("dev/node").display().to_string();
    let whole = async |others| {
        let is_whole = |status: &RingStatus| {
            let alive = status.members.iter().filter(|member| member.standing == "alive").count();
            alive == others && status.slots.iter().all(|slot| !slot.under_replicated)
        };
        e2e::node::status_when(&data, "a whole ring", is_whole).await
    };
    whole(2).await;
    let killed = Command::new("sh").arg("-c").arg(format!("kill -9 {}", pids[1])).status().await;
    assert!(killed.expect("sh runs").success());
    process.line("that a node ended", |line| line.starts_with("node 3 (process ")).await;
    whole(1).await;
    process.signal("INT").await;
    assert_eq!(process.ended().await.code(), Some(0));
    gone(pids[0]).await;

    // As many as there were, killed without a word, and once more.
    let name = |url: &str| url.trim_start_matches("https://").split('.').next().map(str::to_owned);
    let (mut process, _, pids, again) = dev(folder.path(), &[]).await;
    assert_eq!(name(&again), name(&url));
    process.kill().await;
    let (_process, _, _, again) = dev(folder.path(), &["--nodes", "3"]).await;
    assert_eq!(name(&again), name(&url));
    whole(2).await;
    for pid in pids {
        gone(pid).await;
    }
}
