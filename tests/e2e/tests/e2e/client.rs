use e2e::{
    Client, Node, Process,
    client::{client, client_command, host_in, hostnames, tunnel_command, yaml},
    process, soon,
    target::Target,
    visit::get,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::PathBuf};
use tempfile::TempDir;

/// A folder with a configuration file.
struct Written {
    folder: TempDir,
    config: PathBuf,
}

impl Written {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("client.yaml");
        fs::write(&config, text).expect("the folder is writable");
        Self { folder, config }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.config).expect("the file is readable")
    }

    fn path(&self) -> &str {
        self.config.to_str().expect("a path of ASCII letters")
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder.path()).expect("the folder is readable");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Asserts that `client-lite tunnel` refuses the text and that its sentence holds all these parts.
async fn assert_refused(node: &Node, text: &str, parts: &[&str]) {
    let written = Written::new(text);
    let output = process::run(tunnel_command(&written.config, &node.ca()), b"").await;
    let complaint = process::stderr(&output);
    assert!(!output.status.success(), "accepted: {text}");
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in {complaint:?} for\n{text}");
    }
    assert_eq!(written.text(), text, "a refused file stays as it is");
    let checked = client(&["validate", "--config", written.path()]).await;
    assert!(!checked.status.success(), "validate accepts: {text}");
    assert!(process::stderr(&checked).contains(parts[0]), "{}", process::stderr(&checked));
}

#[tokio::test]
async fn what_the_node_gives_is_written_into_the_users_own_file() {
    let target = Target::http().await;
    let node = Node::start().await;
    let text = format!(
        "# my tunnels\nversion: 2 # the only one\n\napex: {}   # where\ntunnels:\n  # the shop\n  - target: {} # pages\n\
         \x20   headerTimeout: 20s\n\n  - target: tcp://127.0.0.1:22   # ssh\n# the end\n",
        node.apex(),
        target.url(),
    );
    let written = Written::new(&text);
    fs::set_permissions(&written.config, fs::Permissions::from_mode(0o644)).expect("our own file");
    let mut running = Process::start(tunnel_command(&written.config, &node.ca()));
    let lines = running.lines(2).await;
    let after = written.text();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let kept = line.trim_start_matches([' ', '-']);
        assert!(after.contains(kept), "{kept:?} is lost from\n{after}");
    }
    let order = ["# my tunnels", "apex:", "tunnels:", "# the shop", "headerTimeout", "tcp://127.0.0.1:22", "# the end"];
    let places: Vec<_> = order.iter().map(|part| after.find(part).expect("kept")).collect();
    assert!(places.is_sorted(), "{after}");
    for part in ["certificate:", "privKey:", "BEGIN CERTIFICATE", "BEGIN PRIVATE KEY"] {
        assert!(after.contains(part), "{part:?} is not in\n{after}");
    }
    let mode = fs::metadata(&written.config).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "the file holds a private key");
    assert_eq!(written.names(), BTreeSet::from(["client.yaml".to_owned()]), "no temporary file is left");
    let names = hostnames(&written.config);
    assert_eq!(names.len(), 2);
    for name in &names {
        assert_eq!(name.split('-').count(), 5, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && name.len() <= 63, "{name}");
    }
    assert!(lines.iter().any(|line| line.starts_with("https://") && line.ends_with(&target.url())), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("tcp://") && line.ends_with("tcp://127.0.0.1:22")), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(&format!(":{} -> ", node.port()))), "{lines:?}");
    running.signal("INT").await;
    assert!(running.ended().await.success());
    assert!(!running.log().contains("PRIVATE"), "keys stay out of logs");

    let again = Process::start(tunnel_command(&written.config, &node.ca()));
    let hosts: BTreeSet<_> = again.lines(2).await.iter().map(|line| host_in(line)).collect();
    assert_eq!(hosts, names.iter().map(|name| node.full_name(name)).collect());
    assert_eq!(written.text(), after, "a complete file is not touched");
    let checked = client(&["validate", "--config", written.path()]).await;
    assert!(process::stdout(&checked).starts_with("OK"), "{}", process::stderr(&checked));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused_before_anything_is_published() {
    let node = Node::start().await;
    let written = Written::new(&yaml(&node.apex(), &["target: tcp://127.0.0.1:22"]));
    // A folder without room for a temporary file stops even root, whom permissions do not.
    let read_only = ReadOnly::make(written.folder.path()).await;
    if !read_only.works(written.folder.path()) {
        eprintln!("skipped: this user may write into folders that are read-only");
        return;
    }
    let output = process::run(tunnel_command(&written.config, &node.ca()), b"").await;
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{}", process::stdout(&output));
    assert!(process::stderr(&output).contains(written.path()), "{}", process::stderr(&output));
    assert!(!node.process.log().contains("published"), "{}", node.process.log());
}

/// A folder made read-only by permissions, and by the immutable attribute where that is to be had.
struct ReadOnly {
    path: PathBuf,
}

impl ReadOnly {
    async fn make(path: &std::path::Path) -> Self {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("our own folder");
        let made = Self { path: path.to_owned() };
        made.attribute("+i");
        made
    }

    fn works(&self, path: &std::path::Path) -> bool {
        fs::write(path.join("probe"), "").is_err()
    }

    fn attribute(&self, change: &str) {
        // Not on every file system, and not for every user: `works` tells.
        let mut command = std::process::Command::new("chattr");
        let _ = command.arg(change).arg(&self.path).stderr(std::process::Stdio::null()).status();
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        self.attribute("-i");
        // The temporary folder is removed after this.
        let _ = fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755));
    }
}

#[tokio::test]
async fn a_mistake_in_the_file_is_named_with_its_line() {
    let node = Node::start().await;
    let apex = node.apex();
    let head = format!("version: 2\napex: {apex}\ntunnels:\n");
    for (text, parts) in [
        (format!("{head}  - target: http://127.0.0.1:1\n    insecure: perhaps\n"), &["line 5"][..]),
        (format!("version: two\napex: {apex}\n"), &["line 1"]),
        (format!("version: 1\napex: {apex}\ntunnels: []\n"), &["line 1", "version"]),
        (format!("version: 2\napex: {apex}\ntunnel:\n"), &["line 3", "tunnel"]),
        (format!("{head}  - target: http://127.0.0.1:1\n    headermode: target\n"), &["line 5", "headermode"]),
        (format!("{head}  - target: ftp://127.0.0.1\n"), &["line 4", "ftp://127.0.0.1"]),
        (format!("{head}  - target: tcp://127.0.0.1\n"), &["line 4", "tcp://127.0.0.1"]),
        (format!("{head}  - target: http://127.0.0.1:99999\n"), &["line 4"]),
        (format!("{head}  - target: ''\n"), &["line 4"]),
        (format!("{head}  - target: http://127.0.0.1:1\n    headerTimeout: soon\n"), &["line 5", "headerTimeout"]),
        (format!("{head}  - target: http://127.0.0.1:1\n    headerMode: odd\n"), &["line 5", "headerMode"]),
        (format!("{head}  - target: http://127.0.0.1:1\n    hostname: a_b\n"), &["line 5", "hostname"]),
        (
            format!(
                "{head}  - target: tcp://127.0.0.1:1\n    hostname: a-b\n  - target: tcp://127.0.0.1:2\n    hostname: A-b\n"
            ),
            &["line 7", "line 5"],
        ),
        (format!("{head}  - target: [\n"), &["line"]),
        ("version: 2\ntunnels: []\n".to_owned(), &["apex"]),
    ] {
        assert_refused(&node, &text, parts).await;
    }
    let missing = client(&["tunnel", "--config", "/nowhere/client.yaml"]).await;
    assert!(!missing.status.success() && process::stderr(&missing).contains("/nowhere/client.yaml"));
}

#[tokio::test]
async fn the_example_that_the_client_prints_parses() {
    let example = client(&["config-example"]).await;
    assert!(example.status.success() && process::stdout(&example).contains('#'));
    let written = Written::new(&process::stdout(&example));
    let checked = client(&["validate", "--config", written.path()]).await;
    assert!(checked.status.success(), "{}", process::stderr(&checked));
}

#[tokio::test]
async fn every_command_shows_an_example_in_its_help() {
    for command in ["tunnel", "http", "tcp", "connect", "listen", "ls", "release", "validate", "config-example"] {
        let help = client(&[command, "--help"]).await;
        let text = process::stdout(&help);
        assert!(help.status.success() && text.contains(&format!("client-lite {command}")), "{command}: {text}");
        assert!(text.to_ascii_lowercase().contains("example"), "{command}: {text}");
    }
}

#[tokio::test]
async fn a_node_that_is_not_trusted_is_told_apart_from_one_that_is_away() {
    let node = Node::start().await;
    let stranger = Node::start().await;
    let text = yaml(&node.apex(), &["target: tcp://127.0.0.1:22"]);
    let written = Written::new(&text);
    let mistrusting = Process::start(tunnel_command(&written.config, &stranger.ca()));
    mistrusting.logged("that it does not trust the node", |line| line.to_lowercase().contains("certificate")).await;
    assert!(!written.text().contains("certificate:"), "nothing is written");
}

#[tokio::test]
async fn an_expired_certificate_is_replaced_and_the_hostname_kept() {
    let target = Target::http().await;
    let node = Node::start().await;
    let mut client = Client::publish_one(&node, &target.url()).await;
    let host = client.host().to_owned();
    client.process.signal("TERM").await;
    client.process.ended().await;
    let text = fs::read_to_string(client.config()).expect("the file is readable");
    let expired = with_expired_certificate(&text);
    assert_ne!(expired, text);
    fs::write(client.config(), &expired).expect("the file is writable");
    client.start_again().await;
    assert_eq!(client.host(), host);
    let after = fs::read_to_string(client.config()).expect("the file is readable");
    assert!(after != expired && after.contains("BEGIN CERTIFICATE"), "a new certificate is written");
    let Some(answer) = get(&node, &host, "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Replaces the certificate in a configuration by one for another time, made by nobody in particular, for the same key.
fn with_expired_certificate(text: &str) -> String {
    let key = pem_in(text, "PRIVATE KEY");
    let key = rcgen::KeyPair::from_pem(&key).expect("a key in PEM");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let pem = parameters.self_signed(&key).expect("a certificate").pem();
    let old: Vec<_> = pem_in(text, "CERTIFICATE").lines().map(str::to_owned).collect();
    let new: Vec<_> = pem.lines().collect();
    let lines: Vec<_> = text.lines().collect();
    let start = lines.iter().position(|line| line.contains("BEGIN CERTIFICATE")).expect("a certificate");
    let indent = &lines[start][..lines[start].find("-----").expect("a PEM line")];
    let mut changed: Vec<String> = lines[..start].iter().map(|line| (*line).to_owned()).collect();
    changed.extend(new.iter().map(|line| format!("{indent}{line}")));
    changed.extend(lines[start + old.len()..].iter().map(|line| (*line).to_owned()));
    changed.join("\n") + "\n"
}

/// A PEM block in a YAML block text, without its indentation.
fn pem_in(text: &str, label: &str) -> String {
    let lines = text.lines().map(str::trim).skip_while(|line| !line.contains(&format!("BEGIN {label}")));
    let mut block = Vec::new();
    for line in lines {
        block.push(line);
        if line.contains("END ") {
            break;
        }
    }
    block.join("\n") + "\n"
}

#[tokio::test]
async fn a_hostname_of_somebody_else_is_refused_and_the_others_are_published() {
    let target = Target::http().await;
    let node = Node::start().await;
    let owner = Client::publish_one(&node, &target.url()).await;
    let label = owner.host().split('.').next().expect("a label");
    let own = format!("target: {}", target.url());
    let written = Written::new(&yaml(&node.apex(), &[&format!("{own}\nhostname: {label}"), &own]));
    let thief = Process::start(tunnel_command(&written.config, &node.ca()));
    let published = host_in(&thief.lines(1).await[0]);
    assert_ne!(published, owner.host());
    thief.logged("whose name it is", |line| line.contains(label) && line.contains("somebody else")).await;
    for host in [owner.host(), published.as_str()] {
        let Some(answer) = get(&node, host, "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn two_hundred_tunnels_are_published_at_once() {
    let target = Target::http().await;
    let node = Node::start().await;
    let tunnel = format!("target: {}", target.url());
    let client = Client::publish(&node, &vec![tunnel.as_str(); 200]).await;
    assert_eq!(client.hosts.iter().collect::<BTreeSet<_>>().len(), 200);
    for host in [&client.hosts[0], &client.hosts[99], &client.hosts[199]] {
        let Some(answer) = get(&node, host, "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_was_killed_serves_again_at_once() {
    let target = Target::http().await;
    let node = Node::start().await;
    let mut client = Client::publish_one(&node, &target.url()).await;
    let host = client.host().to_owned();
    for _ in 0..3 {
        client.process.kill().await;
        client.start_again().await;
        assert_eq!(client.host(), host);
        let Some(answer) = get(&node, &host, "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn two_clients_of_one_identity_serve_side_by_side() {
    let target = Target::http().await;
    let node = Node::start().await;
    let mut first = Client::publish_one(&node, &target.url()).await;
    let mut second = first.twin().await;
    assert_eq!(first.host(), second.host());
    let Some(answer) = get(&node, first.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
    first.process.signal("TERM").await;
    assert!(first.process.ended().await.success());
    let Some(answer) = get(&node, second.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "the second serves alone: {answer:?}");
    first.start_again().await;
    second.process.kill().await;
    // Nobody tells the node of a death; until it notices by itself, visits may go to the dead link.
    visible_again(&node, first.host()).await;
}

#[tokio::test]
async fn ls_and_release_work_beside_a_running_tunnel() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish(&node, &[&format!("target: {}", target.url()), "target: tcp://127.0.0.1:22"]).await;
    let command = |name: &str, arguments: &[&str]| {
        let mut command = client_command();
        command.arg(name).args(arguments).arg("--config").arg(client.config()).arg("--ca").arg(node.ca());
        command
    };
    let listed = process::run(command("ls", &[]), b"").await;
    assert!(listed.status.success(), "{}", process::stderr(&listed));
    for host in &client.hosts {
        assert!(process::stdout(&listed).contains(host.as_str()), "{}", process::stdout(&listed));
    }
    let Some(answer) = get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "the tunnel is undisturbed: {answer:?}");
    let label = client.hosts[1].split('.').next().expect("a label");
    let released = process::run(command("release", &[label]), b"").await;
    assert!(released.status.success(), "{}", process::stderr(&released));
    let listed = process::run(command("ls", &[]), b"").await;
    assert!(!process::stdout(&listed).contains(label), "{}", process::stdout(&listed));
    let other = process::run(command("release", &["nobody-has-this"]), b"").await;
    assert!(
        !other.status.success() && process::stderr(&other).contains("nobody-has-this"),
        "{}",
        process::stderr(&other)
    );
}

#[tokio::test]
async fn a_restarted_node_is_found_again_with_the_same_hostnames() {
    let target = Target::http().await;
    let mut node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    node.restart().await;
    visible_again(&node, client.host()).await;
    assert_eq!(client.process.lines(1).await.len(), 1, "a reconnect is told in the log, not on standard output");
}

#[tokio::test]
async fn a_node_that_was_killed_is_found_again_with_the_same_hostnames() {
    let target = Target::http().await;
    let mut node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    node.process.kill().await;
    node.start_again().await;
    visible_again(&node, client.host()).await;
}

/// Asks until the tunnel answers: the client comes back by itself after a wait of its own choice.
async fn visible_again(node: &Node, host: &str) {
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(100));
    soon("the client to come back", async {
        while get(node, host, "/", &[]).await.is_some_and(|answer| answer.status != 200) {
            pause.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn http_and_tcp_publish_without_a_file_and_release_when_they_end() {
    let target = Target::http().await;
    let echo = Target::echo().await;
    let node = Node::start().await;
    let start = |kind: &str, target: &str| {
        let mut command = client_command();
        command.args([kind, target, "--apex", &node.apex(), "--ca"]).arg(node.ca());
        Process::start(command)
    };
    for form in [target.address.port().to_string(), target.address.to_string(), target.url()] {
        let mut http = start("http", &form);
        let line = http.lines(1).await[0].clone();
        let host = host_in(&line);
        assert!(line.starts_with("https://"), "{line}");
        let Some(answer) = get(&node, &host, "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{form}: {answer:?}");
        http.signal("INT").await;
        assert!(http.ended().await.success());
        let Some(answer) = get(&node, &host, "/", &[]).await else { return };
        assert_eq!(answer.status, 404, "the name is given back: {answer:?}");
    }
    let tcp = start("tcp", &echo.address.port().to_string());
    let host = host_in(&tcp.lines(1).await[0]);
    let output = process::run(e2e::client::connect_command(&node, &host), b"hello").await;
    assert_eq!(process::stdout(&output), "hello", "{}", process::stderr(&output));
}

#[tokio::test]
async fn flags_win_over_variables_and_variables_over_defaults() {
    let target = Target::http().await;
    let node = Node::start().await;
    let mut command = client_command();
    command.args(["http", &target.url()]).env("SPECTER_APEX", node.apex()).env("SPECTER_CA", node.ca());
    let http = Process::start(command);
    assert_eq!(http.lines(1).await.len(), 1);
    let mut command = client_command();
    command.args(["http", &target.url(), "--apex", &node.apex(), "--ca"]).arg(node.ca());
    command.env("SPECTER_APEX", "nowhere.invalid:1").env("SPECTER_CA", "/nowhere");
    let http = Process::start(command);
    assert_eq!(http.lines(1).await.len(), 1);
}
