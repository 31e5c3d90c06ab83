use super::*;
use proptest::prelude::*;

const PEM: &str = "-----BEGIN X-----\nAAAA\nBBBB\n-----END X-----\n";

fn values(text: &str, hostnames: &[(usize, &str)]) -> Values {
    Values { certificate: Some(PEM.to_owned()), private_key: Some(Secret(PEM.to_owned())), ..names(text, hostnames) }
}

/// Names for the tunnels that the text has.
fn names(text: &str, hostnames: &[(usize, &str)]) -> Values {
    let tunnels = raw::parse(text).ok().and_then(|raw| raw.tunnels).unwrap_or_default();
    let target = |index: usize| tunnels.get(index).and_then(|tunnel| tunnel.target.clone()).map(|at| at.value);
    let name = |(tunnel, hostname): &(usize, &str)| NewName {
        tunnel: *tunnel,
        target: target(*tunnel).unwrap_or_default(),
        hostname: (*hostname).to_owned(),
    };
    Values { hostnames: hostnames.iter().map(name).collect(), ..Values::default() }
}

#[track_caller]
fn assert_rewritten(old: &str, values: impl Fn(&str) -> Values, new: &str) {
    let values = &values(old);
    let got = rewrite(old, values).expect("rewritten");
    assert_eq!(got, new, "\n{got}");
    // Writing the same again changes nothing.
    assert_eq!(rewrite(new, values).expect("rewritten again"), new);
}

#[test]
fn missing_values_are_put_behind_their_neighbours() {
    assert_rewritten(
        "# top\nversion: 2 # two\napex: example.com # here\n\n# all of them\ntunnels:\n  # shell\n  - target: tcp://h:22 # mine\n    insecure: false\n\n  - target: \"http://h\"\n# end\n",
        |old| values(old, &[(0, "a-b"), (1, "c-d")]),
        "# top\nversion: 2 # two\napex: example.com # here\ncertificate: |\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\nprivKey: |\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\n\n# all of them\ntunnels:\n  # shell\n  - target: tcp://h:22 # mine\n    hostname: a-b\n    insecure: false\n\n  - target: \"http://h\"\n    hostname: c-d\n# end\n",
    );
}

#[test]
fn a_last_line_without_an_end_gets_one() {
    assert_rewritten(
        "version: 2\napex: h\ntunnels:\n- target: tcp://h:22",
        |old| names(old, &[(0, "a-b")]),
        "version: 2\napex: h\ntunnels:\n- target: tcp://h:22\n  hostname: a-b\n",
    );
    let only_apex = rewrite("version: 2\napex: h", &values("", &[])).expect("rewritten");
    assert!(only_apex.starts_with("version: 2\napex: h\ncertificate: |\n  -----BEGIN"), "{only_apex}");
}

#[test]
fn values_are_replaced_where_they_stand_and_keep_their_quotes() {
    assert_rewritten(
        "certificate: \"\" # old\nversion: 2\nprivKey:\napex: h\ntunnels:\n  - hostname: 'x' # single\n    target: tcp://h:1\n  - hostname: \"y\"\n    target: tcp://h:2\n  - hostname: # none\n    target: tcp://h:3\n  - hostname: ~\n    target: tcp://h:4\n",
        |old| values(old, &[(0, "a-b"), (1, "c-d"), (2, "e-f"), (3, "g-h")]),
        "certificate: | # old\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\nversion: 2\nprivKey: |\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\napex: h\ntunnels:\n  - hostname: 'a-b' # single\n    target: tcp://h:1\n  - hostname: \"c-d\"\n    target: tcp://h:2\n  - hostname: e-f # none\n    target: tcp://h:3\n  - hostname: g-h\n    target: tcp://h:4\n",
    );
}

#[test]
fn block_values_are_replaced_and_what_follows_stays() {
    assert_rewritten(
        "version: 2\ncertificate: |- # hi\n    OLD\n    OLDER\n\n\n# next\nprivKey: >\n  OLD\napex: h",
        |old| values(old, &[]),
        "version: 2\ncertificate: | # hi\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\n\n\n# next\nprivKey: |\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\napex: h",
    );
    assert_rewritten(
        "version: 2\napex: h\ncertificate: |\nprivKey: 'a\n  b' # two lines",
        |old| values(old, &[]),
        "version: 2\napex: h\ncertificate: |\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\nprivKey: | # two lines\n  -----BEGIN X-----\n  AAAA\n  BBBB\n  -----END X-----\n",
    );
}

#[test]
fn flow_style_stays_flow_style_and_json_stays_json() {
    assert_rewritten(
        "{version: 2, apex: h, tunnels: [{target: tcp://h:1}, {target: 'tcp://h:2', insecure: false, },],}\n",
        |old| values(old, &[(0, "a-b"), (1, "c-d")]),
        "{version: 2, apex: h, certificate: \"-----BEGIN X-----\\nAAAA\\nBBBB\\n-----END X-----\\n\", privKey: \"-----BEGIN X-----\\nAAAA\\nBBBB\\n-----END X-----\\n\", tunnels: [{target: tcp://h:1, hostname: a-b}, {target: 'tcp://h:2', hostname: c-d, insecure: false, },],}\n",
    );
    assert_rewritten(
        "{\"version\": 2, \"apex\": \"h\", \"tunnels\": [{\"target\": \"tcp://h:1\"}]}",
        |old| names(old, &[(0, "a-b")]),
        "{\"version\": 2, \"apex\": \"h\", \"tunnels\": [{\"target\": \"tcp://h:1\", \"hostname\": \"a-b\"}]}",
    );
}

#[test]
fn line_ends_of_windows_are_kept() {
    assert_rewritten(
        "version: 2\r\napex: h\r\ntunnels:\r\n  - target: tcp://h:1\r\n",
        |old| Values { private_key: None, ..values(old, &[(0, "a-b")]) },
        "version: 2\r\napex: h\r\ncertificate: |\r\n  -----BEGIN X-----\r\n  AAAA\r\n  BBBB\r\n  -----END X-----\r\ntunnels:\r\n  - target: tcp://h:1\r\n    hostname: a-b\r\n",
    );
}

#[test]
fn names_that_yaml_could_take_for_something_else_are_quoted() {
    assert_rewritten(
        "version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n- target: tcp://h:2\n",
        |old| names(old, &[(0, "true"), (1, "1e5")]),
        "version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n  hostname: \"true\"\n- target: tcp://h:2\n  hostname: \"1e5\"\n",
    );
}

#[test]
fn what_cannot_be_edited_without_a_risk_is_refused() {
    for text in [
        "version: 2\napex: h\ntunnels: [&t {target: tcp://h:1}, *t]\n",
        "version: 2\napex: h\ntunnels:\n- target: tcp://h:1\n",
        "version: 2\napex: h\n",
        "- a\n",
        "version: [\n",
    ] {
        assert!(rewrite(text, &names(text, &[(1, "a-b")])).is_err(), "{text}");
    }
    // One node that two tunnels share: the name of one would be the name of both.
    let shared = "version: 2\napex: h\ntunnels: [&t {target: tcp://h:1}, *t]\n";
    assert!(rewrite(shared, &names(shared, &[(0, "a-b")])).is_err());
}

#[test]
fn a_tunnel_that_leads_elsewhere_meanwhile_gets_no_name() {
    let text = "version: 2\napex: h\ntunnels: [{target: tcp://h:1}, {target: tcp://h:2}]\n";
    let asked = names(text, &[(0, "a-b")]);
    let swapped = "version: 2\napex: h\ntunnels: [{target: tcp://h:2}, {target: tcp://h:1}]\n";
    assert_eq!(rewrite(swapped, &asked), Err(RewriteError::Changed));
}

/// Files as people write them.
fn file() -> impl Strategy<Value = (String, usize)> {
    let comment = prop_oneof![Just(""), Just(" # why: {x} | [y]"), Just("   # ünïcode")];
    let tunnel = prop_oneof![
        comment.clone().prop_map(|c| format!("- target: tcp://127.0.0.1:22{c}\n")),
        comment.clone().prop_map(|c| format!("-   target: \"http://h:1\"{c}\n    headerTimeout: 5s\n")),
        comment.clone().prop_map(|c| format!("- hostname: 'old-name'{c}\n  target: 'https://h'\n")),
        comment.clone().prop_map(|c| format!("- {{target: unix:///run/a.sock, insecure: false}}{c}\n")),
        comment.clone().prop_map(|c| format!("-{c}\n  target: >-\n    tcp://h:1\n  hostname:\n")),
        comment.clone().prop_map(|c| format!("# above\n- headerMode: target{c}\n  target: http://ü.example\n\n")),
    ];
    let head = prop_oneof![
        Just(""),
        Just("certificate: \"\"\n"),
        Just("# c\ncertificate: |\n  OLD\n  PEM\n\n"),
        Just("privKey: 'x'   # secret\n"),
        Just("privKey: |-\n      deep\n"),
    ];
    let (indent, line_end) = (0..5_usize, prop_oneof![Just("\n"), Just("\r\n")]);
    (head.clone(), comment, head, prop::collection::vec(tunnel, 1..6), indent, line_end).prop_map(
        |(before, comment, after, tunnels, indent, line_end)| {
            let same_key = ["certificate", "privKey"].iter().any(|key| before.contains(key) && after.contains(key));
            let after = if same_key { "" } else { after };
            let count = tunnels.len();
            let margin = " ".repeat(indent);
            let tunnels: String = tunnels
                .concat()
                .lines()
                .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{margin}{line}\n") })
                .collect();
            let text = format!(
                "---\n{before}version: 2{comment}\napex: example.com:443{comment}\n{after}tunnels:{comment}\n{tunnels}"
            );
            (text.replace('\n', line_end), count)
        },
    )
}

fn comments(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| Some(&line[line.find('#')?..])).collect()
}

proptest! {
    #[test]
    fn any_file_takes_its_values_and_keeps_every_comment_and_every_other_line((text, count) in file()) {
        let hostnames: Vec<(usize, String)> = (0..count).map(|index| (index, format!("new-name-{index}"))).collect();
        let hostnames: Vec<(usize, &str)> = hostnames.iter().map(|(index, name)| (*index, name.as_str())).collect();
        let values = values(&text, &hostnames);
        let new = rewrite(&text, &values).unwrap_or_else(|error| panic!("{error}\n{text}"));
        prop_assert_eq!(comments(&new), comments(&text));
        let raw = raw::parse(&new).expect("it parses");
        let names: Vec<String> = raw.tunnels.iter().flatten().map(|tunnel| tunnel.hostname.clone().expect("a name").value).collect();
        let expected: Vec<String> = values.hostnames.iter().map(|name| name.hostname.clone()).collect();
        prop_assert_eq!(names, expected);
        prop_assert_eq!(raw.certificate.expect("a certificate").value, PEM);
        prop_assert_eq!(raw.priv_key.expect("a key").value.0, PEM);
        prop_assert_eq!(rewrite(&new, &values).expect("again"), new);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[ a-z:#|>'\"{}\\[\\],\n&*~-]{0,80}") {
        let text = format!("version: 2\napex: h\ntunnels:\n- target: x\n{text}");
        rewrite(&text, &values(&text, &[(0, "a-b")])).ok();
    }
}
