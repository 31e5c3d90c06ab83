use e2e::{
    Node, Process, binary,
    client::{host_in, hostnames, tunnel_command, yaml},
    node::{pki_init, run_command},
    target::Target,
};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};
use tokio::process::Command;

/// Tunnels of each client.
const TUNNELS: usize = 12;

#[tokio::test]
async fn a_node_that_is_killed_again_and_again_keeps_every_hostname_that_it_gave() {
    let target = Target::http().await;
    let own = format!("target: {}", target.url());
    let mut node = Node::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    // What each client wrote into its file is what the node told it: the ledger.
    let mut ledger: Vec<(PathBuf, BTreeSet<String>)> = Vec::new();
    for round in 0..6 {
        let config = folder.path().join(format!("client-{round}.yaml"));
        fs::write(&config, yaml(&node.apex(), &[own.as_str(); TUNNELS])).expect("the folder is writable");
        let mut client = Process::start(tunnel_command(&config, &node.ca()));
        // Killed with more and more of them done, and at the end with all of them.
        client.lines(round * 2 + 2).await;
        node.process.kill().await;
        client.kill().await;
        ledger.push((config.clone(), hostnames(&config).into_iter().collect()));
        node.start_again().await;
        let wanted: Vec<_> = hostnames(&config).iter().map(|name| format!("{own}\nhostname: {name}")).collect();
        let thief_config = folder.path().join("thief.yaml");
        let wanted: Vec<_> = wanted.iter().map(String::as_str).chain([own.as_str()]).collect();
        fs::write(&thief_config, yaml(&node.apex(), &wanted)).expect("the folder is writable");
        let thief = Process::start(tunnel_command(&thief_config, &node.ca()));
        for name in hostnames(&config) {
            thief.logged("whose name it is", |line| line.contains(&name) && line.contains("somebody else")).await;
        }
    }
    for (config, names) in ledger {
        assert!(!names.is_empty(), "a name that was published stands in the file");
        let client = Process::start(tunnel_command(&config, &node.ca()));
        let hosts: BTreeSet<_> = client.lines(TUNNELS).await.iter().map(|line| host_in(line)).collect();
        let lost: Vec<_> = names.iter().filter(|name| !hosts.contains(&node.full_name(name))).collect();
        assert_eq!(lost, [""; 0], "{hosts:?}");
    }
}

#[tokio::test]
async fn a_first_start_that_is_killed_is_made_good_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    pki_init(&folder.path().join("certs")).await;
    for millis in [1, 5, 15, 30, 60, 120] {
        let mut process = Process::start(run_command(folder.path(), "localhost", 0, 0));
        let _ = tokio::time::timeout(Duration::from_millis(millis), process.ended()).await;
        process.kill().await;
        let mut node = Process::start(run_command(folder.path(), "localhost", 0, 0));
        node.line("that it is ready", |line| line == "ready").await;
        node.kill().await;
        fs::remove_dir_all(folder.path().join("data")).expect("the node is gone");
    }
}

#[tokio::test]
async fn a_first_start_of_dev_that_is_killed_is_made_good_by_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for millis in [1, 5, 15, 30, 60, 120] {
        let dev = || {
            let mut command = Command::new(binary::specter_server());
            command.args(["dev", "--port", "0", "--http-port", "0", "--data-dir"]);
            command.arg(folder.path().join(millis.to_string()));
            Process::start(command)
        };
        let mut process = dev();
        let _ = tokio::time::timeout(Duration::from_millis(millis), process.ended()).await;
        process.kill().await;
        let mut process = dev();
        process.line("its URL", |line| line.trim_start().starts_with("https://")).await;
        process.kill().await;
    }
}
