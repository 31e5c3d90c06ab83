use e2e::{Process, binary, process, target::Target, tool::tool};
use std::path::Path;
use tokio::process::Command;

/// Starts `specter-server dev` on ports of its own choice and returns it with its URL and its curl line.
async fn start(data: &Path, more: &[&str]) -> (Process, String, String) {
    let mut command = Command::new(binary::specter_server());
    command.args(["dev", "--port", "0", "--http-port", "0", "--data-dir"]).arg(data).args(more);
    let process = Process::start(command);
    let starting = |start: &'static str| move |line: &str| line.trim_start().starts_with(start);
    let url = process.line("its URL", starting("https://")).await.trim().to_owned();
    let curl = process.line("a curl line", starting("curl ")).await.trim().to_owned();
    (process, url, curl)
}

async fn run_line(line: &str) -> std::process::Output {
    let mut command = Command::new("sh");
    command.arg("-c").arg(line);
    process::run(command, b"").await
}

#[tokio::test]
async fn the_first_command_shows_a_page_and_the_lines_it_prints_work() {
    if tool("curl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let (mut dev, url, curl) = start(&data, &[]).await;
    assert!(url.contains(".localhost:"), "{url}");
    assert!(curl.contains(url.trim_end_matches('/')), "{curl}");
    let output = run_line(&curl).await;
    assert!(output.status.success() && !output.stdout.is_empty(), "{curl}: {}", process::stderr(&output));
    dev.line("a client line", |line| line.trim_start().starts_with("client-lite ")).await;
    dev.line("an ssh line", |line| line.trim_start().starts_with("ssh ")).await;
    dev.signal("INT").await;
    assert_eq!(dev.ended().await.code(), Some(0));

    let (mut dev, again, curl) = start(&data, &[]).await;
    let host = |url: &str| url.trim_start_matches("https://").split(':').next().map(str::to_owned);
    assert_eq!(host(&again), host(&url), "a second start keeps the hostname");
    assert!(run_line(&curl).await.status.success(), "{curl}");
    dev.signal("TERM").await;
    assert_eq!(dev.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_first_command_can_expose_a_service_of_the_users_own() {
    if tool("curl").is_none() {
        return;
    }
    let target = Target::http().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_dev, _, curl) = start(&folder.path().join("data"), &["--expose", &target.url()]).await;
    let output = run_line(&curl).await;
    assert!(process::stdout(&output).contains("GET / "), "{curl}: {}", process::stderr(&output));
}

#[tokio::test]
async fn the_first_command_says_in_one_sentence_why_it_cannot_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port().to_string();
    let data = folder.path().join("data");
    let mut command = Command::new(binary::specter_server());
    command.args(["dev", "--port", &port, "--http-port", "0", "--data-dir"]).arg(&data);
    let output = process::run(command, b"").await;
    assert!(!output.status.success() && process::stderr(&output).contains(&port), "{}", process::stderr(&output));
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("the folder is writable");
    let mut command = Command::new(binary::specter_server());
    command.args(["dev", "--port", "0", "--http-port", "0", "--data-dir"]).arg(&file);
    let output = process::run(command, b"").await;
    assert!(!output.status.success() && process::stderr(&output).contains("file"), "{}", process::stderr(&output));
}
