//! What `dev` prints when everything runs: lines to paste.

use std::path::Path;

/// What the lines are made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) url: &'a str,
    pub(super) target: &'a str,
    pub(super) apex: &'a str,
    pub(super) port: u16,
    pub(super) http_port: Option<u16>,
    pub(super) ca: &'a Path,
}

/// The text. Lines to paste start with the program's name and stand alone.
pub(super) fn text(facts: &Facts<'_>) -> String {
    let Facts { url, target, apex, port, http_port, ca } = facts;
    let ca = quote(&ca.display().to_string());
    let at = format!("--apex {apex}:{port} --ca {ca}");
    let raw = url.strip_prefix("tcp://").and_then(|rest| rest.split(':').next());
    let mut text = format!("\nSpecter runs on this computer; Ctrl-C ends it. What is behind the tunnel: {target}\n\n");
    match raw {
        Some(_) => text.push_str(&format!("The tunnel carries raw bytes:\n{url}\n\n")),
        None => {
            let url = if url.ends_with('/') { (*url).to_owned() } else { format!("{url}/") };
            text.push_str(&format!(
                "Open it in a browser, which will warn of a certificate authority that only this computer knows:\n\
                 {url}\n\n\
                 Or ask with curl:\n\
                 curl --cacert {ca} {url}\n\n"
            ));
        }
    }
    // The name of a tunnel that carries SSH, or a place for it.
    let host = raw.map_or_else(|| format!("NAME.{apex}"), str::to_owned);
    text.push_str(&format!(
        "Publish something of your own from another terminal; each line prints the name it got:\n\
         client-lite http 5173 {at}\n\
         client-lite tcp 22 {at}\n\n"
    ));
    text.push_str(&match raw {
        Some(_) => "Reach it, as bytes on standard input and output, or with ssh:\n".to_owned(),
        None => format!("Reach what `client-lite tcp 22` published, with the name that it printed for {host}:\n"),
    });
    text.push_str(&format!(
        "client-lite connect {host} {at}\n\
         ssh -o ProxyCommand=\"client-lite connect %h {}\" {host}\n",
        // ssh reads % itself, and the shell reads what stands in double quotes.
        at.replace('%', "%%").replace(['$', '`', '"', '\\'], "?"),
    ));
    if let Some(http_port) = http_port {
        text.push_str(&format!("ssh -o ProxyCommand=\"nc -X connect -x 127.0.0.1:{http_port} %h 22\" {host}\n"));
    }
    text.push_str("\n(client-lite is made by `cargo build --release` and lies beside specter-server.)\n");
    text
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%".contains(&byte)) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(url: &str, ca: &str) -> Vec<String> {
        let facts = Facts {
            url,
            target: "http://127.0.0.1:1",
            apex: "localhost",
            port: 8443,
            http_port: Some(8080),
            ca: Path::new(ca),
        };
        text(&facts).lines().map(str::to_owned).collect()
    }

    fn has(lines: &[String], line: &str) {
        assert!(lines.iter().any(|known| known == line), "{line}\nnot in\n{}", lines.join("\n"));
    }

    #[test]
    fn a_page_is_shown_with_its_address_and_lines_to_paste() {
        let lines = lines("https://a-b.localhost:8443", "/d/ca.crt");
        has(&lines, "https://a-b.localhost:8443/");
        has(&lines, "curl --cacert /d/ca.crt https://a-b.localhost:8443/");
        has(&lines, "client-lite http 5173 --apex localhost:8443 --ca /d/ca.crt");
        has(&lines, "client-lite connect NAME.localhost --apex localhost:8443 --ca /d/ca.crt");
        has(
            &lines,
            "ssh -o ProxyCommand=\"client-lite connect %h --apex localhost:8443 --ca /d/ca.crt\" NAME.localhost",
        );
    }

    #[test]
    fn a_raw_tunnel_is_shown_with_its_own_name() {
        let lines = lines("tcp://a-b.localhost:8443", "/d/ca.crt");
        has(&lines, "tcp://a-b.localhost:8443");
        has(&lines, "client-lite connect a-b.localhost --apex localhost:8443 --ca /d/ca.crt");
        assert!(!lines.iter().any(|line| line.starts_with("curl")));
    }

    #[test]
    fn a_path_with_a_space_is_one_word() {
        let lines = lines("https://a.localhost", "/home/it's me/ca.crt");
        has(&lines, r"curl --cacert '/home/it'\''s me/ca.crt' https://a.localhost/");
    }
}
