use std::path::Path;

use super::*;

fn parse(line: &str, variables: &[(&str, &str)]) -> Result<Command, ArgsError> {
    let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Command::parse(&arguments, |name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn config(line: &str, variables: &[(&str, &str)]) -> Config {
    match parse(line, variables).unwrap() {
        Command::Run(config) => *config,
        other => panic!("{other:?}"),
    }
}

const ENOUGH: &str = "run --apex example.com --data-dir data --cert-dir cert";

#[test]
fn flags_beat_variables_and_variables_beat_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "advertise = \"file:1\"\nlog = \"error\"\nwork_bits = 3\n").unwrap();
    let file = file.to_str().unwrap();
    let variables = [
        ("SPECTER_LOG", "warn"),
        ("SPECTER_ADVERTISE", "variable:2"),
        ("SPECTER_CONFIG", file),
        ("SPECTER_SYNC", "everysec"),
    ];
    let config = config(&format!("{ENOUGH} --advertise flag:3"), &variables);
    assert_eq!(config.advertise.to_string(), "flag:3");
    assert_eq!((config.log.as_str(), config.work_bits), ("warn", 3));
    assert_eq!(config.sync, config::SyncPolicy::EverySecond);
    let config = self::config(&format!("{ENOUGH} --sync always"), &variables);
    assert_eq!(config.sync, config::SyncPolicy::Always);
}

#[test]
fn lists_come_from_repeated_flags_or_commas() {
    let flags = config(&format!("{ENOUGH} --apex example.net --listen 127.0.0.1:0 --listen-http none"), &[]);
    assert_eq!(flags.apexes.len(), 2);
    assert!(flags.listen_http.is_empty());
    let variables = [
        ("SPECTER_APEX", "example.com, example.net"),
        ("SPECTER_DATA_DIR", "data"),
        ("SPECTER_CERT_ENV", "1"),
        ("SPECTER_LISTEN_TCP", "127.0.0.1:1,[::1]:1"),
    ];
    let environment = config("run", &variables);
    assert_eq!(environment.apexes, flags.apexes);
    assert_eq!(environment.listen_tcp.len(), 2);
}

#[test]
fn dev_keeps_its_data_where_the_user_keeps_data() {
    let options = |line: &str, variables: &[(&str, &str)]| match parse(line, variables) {
        Ok(Command::Dev(options)) => options,
        other => panic!("{other:?}"),
    };
    let home = ("HOME", "/home/me");
    let path = |options: dev::Options| options.data_dir.display().to_string();
    assert_eq!(path(options("dev", &[home])), "/home/me/.local/share/specter-dev");
    assert_eq!(path(options("dev", &[home, ("XDG_DATA_HOME", "/data")])), "/data/specter-dev");
    assert_eq!(path(options("dev --data-dir here", &[home])), "here");
    assert_eq!(options("dev", &[home, ("SPECTER_LOG", "debug")]).log, "debug");
    assert!(parse("dev", &[]).unwrap_err().to_string().contains("--data-dir"));
}

#[test]
fn every_help_has_an_example() {
    for command in ["", "dev", "run", "pki init", "pki node"] {
        let Ok(Command::Print(help)) = parse(&format!("{command} --help"), &[]) else { panic!("{command}") };
        assert!(help.contains("Examples:") && help.contains(&format!("specter-server {command}")), "{help}");
    }
    assert!(matches!(parse("--version", &[]), Ok(Command::Print(_))));
}

#[test]
fn a_wrong_line_is_answered_with_what_is_wrong() {
    for (line, part) in [
        ("", "a command is missing"),
        ("run --lisen x", "--lisen"),
        ("run --apex example.com", "--data-dir"),
        ("dev --port 99999", "--port"),
        ("pki init --cert-dir d --advertise nohost", "--advertise: `nohost` is not HOST:PORT"),
    ] {
        let error = parse(line, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn the_store_commands_name_their_directory() {
    let Ok(Command::Store(task)) = parse("store check data --json", &[]) else { panic!("not understood") };
    assert!(task.json && task.data_dir == Path::new("data") && matches!(task.action, store::Action::Check));
    let Ok(Command::Store(task)) = parse("store restore data --from copy --accept-loss", &[]) else {
        panic!("not understood")
    };
    let store::Action::Restore(wanted) = task.action else { panic!("not understood") };
    assert!(wanted.from == [Path::new("copy")] && wanted.accepts_loss && !wanted.is_dry);
    let error = parse("store backup data", &[]).unwrap_err().to_string();
    assert!(error.contains("--out"), "{error}");
}

#[test]
fn ring_status_asks_the_node_of_a_directory_or_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    std::fs::write(&file, "data_dir = \"data\"\n").unwrap();
    let file = file.to_str().unwrap();
    let task = |line: &str, variables: &[(&str, &str)]| match parse(line, variables) {
        Ok(Command::RingStatus(task)) => (task.data_dir, task.json),
        other => panic!("{other:?}"),
    };
    assert_eq!(task("ring status --data-dir here --json", &[("SPECTER_CONFIG", file)]), ("here".into(), true));
    assert_eq!(task("ring status", &[("SPECTER_DATA_DIR", "there")]), ("there".into(), false));
    let of_file = (folder.path().join("data"), false);
    assert_eq!(task(&format!("ring status --config {file}"), &[]), of_file);
    assert_eq!(task("ring status", &[("SPECTER_CONFIG", file)]), of_file);
    for (flag, wanted) in [("", false), ("--accept-loss", true)] {
        let Ok(Command::RingRecover(task)) = parse(&format!("ring recover --data-dir here {flag}"), &[]) else {
            panic!("not understood")
        };
        assert_eq!((task.data_dir.as_path(), task.accept_loss, task.json), (Path::new("here"), wanted, false));
    }
    let error = parse("ring status", &[]).unwrap_err().to_string();
    assert!(error.contains("--data-dir") && error.contains("--config"), "{error}");
}

#[test]
fn how_many_nodes_dev_runs_and_how_long_a_node_drains_is_checked() {
    let nodes = |line: &str| match parse(line, &[("HOME", "/home/me")]) {
        Ok(Command::Dev(options)) => options.nodes,
        other => panic!("{other:?}"),
    };
    assert_eq!((nodes("dev"), nodes("dev --nodes 9")), (None, Some(9)));
    for line in ["dev --nodes 0", "dev --nodes 10"] {
        let error = parse(line, &[("HOME", "/home/me")]).unwrap_err().to_string();
        assert!(error.contains("from 1 to 9"), "{error}");
    }
    assert_eq!(config(ENOUGH, &[]).drain.as_secs(), 20);
    assert_eq!(config(&format!("{ENOUGH} --drain 0"), &[("SPECTER_DRAIN", "7")]).drain.as_secs(), 0);
    assert_eq!(config(ENOUGH, &[("SPECTER_DRAIN", "7")]).drain.as_secs(), 7);
    let error = parse(&format!("{ENOUGH} --drain 3601"), &[]).unwrap_err().to_string();
    assert!(error.contains("from 0 to 3600"), "{error}");
}
