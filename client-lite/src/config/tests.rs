use super::*;

fn check(text: &str) -> Result<Config, String> {
    Config::check(text, Path::new("dir/client.yaml")).map_err(|error| error.to_string())
}

fn tunnel(lines: &str) -> Result<Tunnel, String> {
    let mut config = check(&format!("version: 2\napex: example.com\ntunnels:\n- {lines}\n"))?;
    Ok(config.tunnels.remove(0))
}

#[test]
fn the_example_is_a_configuration() {
    let config = check(include_str!("../../example.yaml")).expect("valid");
    assert_eq!(config.apex, Authority { host: "example.com".to_owned(), port: 443 });
    assert_eq!(config.tunnels.len(), 4);
    assert_eq!(config.links, 3);
    assert_eq!(config.tunnels[1].host, Host::Hostname);
    assert_eq!(config.tunnels[1].header_timeout_ms, 30_000);
    assert!(config.is_incomplete());
}

#[test]
fn every_commented_field_of_the_example_exists() {
    let text = include_str!("../../example.yaml").replace("#pinnedKey", "pinnedKey");
    assert!(matches!(check(&text).expect("valid").trust, Trust::Pinned(_)));
    let text = include_str!("../../example.yaml").replace("#caFile", "caFile");
    assert!(check(&text).expect_err("there is no such file").contains("dir/ca.crt cannot be read"));
}

#[test]
fn errors_name_the_file_the_line_the_field_and_what_to_do() {
    for (text, parts) in [
        ("", vec!["line 1", "version", "write `version: 2`"]),
        ("version: 1\napex: h", vec!["line 1", "`version: 1`", "write 2"]),
        ("version: two\napex: h", vec!["line 1", "`version: two`", "write 2"]),
        ("version: 2\n", vec!["apex", "write `apex:"]),
        ("version: 2\napex: h:99999", vec!["line 2", "`apex: h:99999`", "port"]),
        ("version: 2\napex: h\nsurprise: 1", vec!["line 3", "surprise", "config-example"]),
        ("version: 2\napex: [h]", vec!["line 2", "`apex`"]),
        ("version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n  colour: red", vec!["line 5", "colour"]),
        ("version: 2\napex: h\ntunnels: 7", vec!["line 3", "`tunnels`", "sequence"]),
        ("version: 2\napex: h\ntunnels:\n- target: ftp://h", vec!["line 4", "`target: ftp://h`", "tcp://HOST:PORT"]),
        ("version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n- hostname: x-y", vec!["line 5", "`target` is missing"]),
        (
            "version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n  insecure: true",
            vec!["line 5", "`insecure: true`", "https://"],
        ),
        (
            "version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n  insecure: maybe",
            vec!["line 5", "`insecure: maybe`", "neither true nor false"],
        ),
        ("version: 2\napex: h\ntunnels:\n- target: http://h\n  headerTimeout: soon", vec!["line 5", "soon", "15s"]),
        ("version: 2\napex: h\ntunnels:\n- target: http://h\n  headerMode: odd", vec!["line 5", "odd", "custom"]),
        ("version: 2\napex: h\ntunnels:\n- target: http://h\n  headerMode: custom", vec!["line 5", "headerHost"]),
        ("version: 2\napex: h\ntunnels:\n- target: http://h\n  headerHost: 'a b'", vec!["line 5", "a b"]),
        ("version: 2\napex: h\ntunnels:\n- target: http://h\n  hostname: a_b", vec!["line 5", "a_b", "hyphens"]),
        (
            "version: 2\napex: h.de\ntunnels:\n- {target: tcp://h:1, hostname: a-b}\n- {target: tcp://h:2, hostname: A-b.h.de}",
            vec!["line 5", "a-b.h.de", "line 4 already"],
        ),
        ("version: 2\napex: h\nversion: 2", vec!["line 3", "version"]),
        ("version: 2\napex: h\nlinks: 0", vec!["line 3", "`links: 0`", "1 to 8"]),
        ("version: 2\napex: h\nlinks: many", vec!["line 3", "`links: many`", "1 to 8"]),
        ("version: 2\napex: h\nmemory: tiny", vec!["line 3", "`memory: tiny`", "small, normal or large"]),
        ("version: 2\napex: h\ntransport: sctp", vec!["line 3", "`transport: sctp`", "auto, quic or tcp"]),
        ("version: 2\napex: h\npinnedKey: abc", vec!["line 3", "pinnedKey", "base64"]),
        ("version: 2\napex: h\n\ttunnels: 7", vec!["line 2", "tab"]),
    ] {
        let error = check(text).expect_err(text);
        assert!(error.starts_with("dir/client.yaml, line "), "{error}");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn aliases_and_merges_say_what_they_refer_to() {
    let text = "version: 2\napex: &a h.de\ntunnels:\n- &t {target: 'http://h', headerHost: *a}\n- {<<: *t, headerMode: hostname}\n- <<: *t\n  headerHost: other\n";
    let config = check(text).expect("valid");
    let hosts: Vec<&Host> = config.tunnels.iter().map(|tunnel| &tunnel.host).collect();
    assert_eq!(hosts, [&Host::Fixed("h.de".to_owned()), &Host::Hostname, &Host::Fixed("other".to_owned())]);
    for text in ["&a {<<: *a}", "version: 2\ntunnels: &t [*t]", "version: *no", "a: 1\n---\nb: 2"] {
        check(text).expect_err(text);
    }
    let deep = "[".repeat(100_000);
    assert!(check(&deep).expect_err("deep").contains("line 1"));
}

#[test]
fn errors_never_show_the_key() {
    for text in ["version: 2\nprivKey: CANARY\nx: 1", "version: 2\nprivKey: [CANARY]\n", "privKey: \"CANARY\n"] {
        let error = check(text).expect_err(text);
        assert!(!error.contains("CANARY"), "{error}");
    }
    let config = check("version: 2\napex: h\nprivKey: CANARY").expect("valid");
    assert!(!format!("{config:?}").contains("CANARY"));
}

#[test]
fn a_missing_file_is_told_with_what_to_do() {
    let error = Config::load(Path::new("/nowhere/client.yaml")).expect_err("missing").to_string();
    assert!(error.contains("/nowhere/client.yaml does not exist") && error.contains("config-example"), "{error}");
}

#[test]
fn header_modes_choose_as_in_the_original() {
    let host = |lines: &str| tunnel(lines).expect(lines).host;
    let fixed = |text: &str| Host::Fixed(text.to_owned());
    assert_eq!(host("target: http://h:80"), fixed("h"));
    assert_eq!(host("target: http://h:5173"), fixed("h:5173"));
    assert_eq!(host("target: https://h:443"), fixed("h"));
    assert_eq!(host("target: http://[::1]:80"), fixed("[::1]"));
    assert_eq!(host("target: unix:///run/x"), fixed("localhost"));
    assert_eq!(host("{target: 'http://h', headerHost: other}"), fixed("other"));
    assert_eq!(host("{target: 'http://h', headerMode: '', headerHost: other}"), fixed("other"));
    assert_eq!(host("{target: 'http://h', headerMode: custom, headerHost: other}"), fixed("other"));
    assert_eq!(host("{target: 'http://h', headerMode: target, headerHost: other}"), fixed("h"));
    assert_eq!(host("{target: 'http://h', headerMode: hostname, headerHost: other}"), Host::Hostname);
    assert_eq!(host("{target: 'http://h', proxyHeaderMode: hostname}"), Host::Hostname);
}

#[test]
fn durations_have_units_or_count_seconds() {
    for (text, expected_ms) in [
        ("15s", Some(15_000)),
        ("500ms", Some(500)),
        ("2m", Some(120_000)),
        ("1m30s", Some(90_000)),
        ("1.5s", Some(1500)),
        (".5m", Some(30_000)),
        ("0.0015s", Some(2)),
        ("0.99999999999999h", Some(3_600_000)),
        ("99999999999999999999h", None),
        ("1.2.3s", None),
        (".s", None),
        ("20", Some(20_000)),
        ("1h", Some(3_600_000)),
        ("2h", None),
        ("0", None),
        ("s", None),
        ("15 s", None),
        ("15x", None),
        ("1m30", None),
        ("-5s", None),
        ("", None),
    ] {
        assert_eq!(duration_ms(text), expected_ms, "{text:?}");
    }
    assert_eq!(tunnel("{target: 'http://h', headerTimeout: 20}").expect("valid").header_timeout_ms, 20_000);
    assert_eq!(tunnel("{target: 'http://h', headerTimeout: 2m}").expect("valid").header_timeout_ms, 120_000);
    assert_eq!(tunnel("target: http://h").expect("valid").header_timeout_ms, 15_000);
}

#[test]
fn empty_values_count_as_left_out() {
    let text = "version: 2\napex: h\ncertificate:\nprivKey: ''\ntunnels:\n- {target: 'tcp://h:1', hostname: ''}\n- {target: 'tcp://h:1', hostname: ~}";
    let config = check(text).expect("valid");
    assert!(config.is_incomplete() && config.certificate.is_empty());
    assert!(config.tunnels.iter().all(|tunnel| tunnel.hostname.is_none()));
    assert!(check("version: 2\napex: h\ntunnels:").expect("valid").tunnels.is_empty());
}
