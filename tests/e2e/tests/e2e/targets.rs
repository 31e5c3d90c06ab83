use e2e::{
    Client, Node, Process,
    target::{Target, UnixTarget},
    tool::tool,
    visit::{self, get},
};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use std::{fs, sync::Arc};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_rustls::TlsAcceptor;

/// TLS for a target, with a certificate that nobody trusts.
fn self_signed(alpn: &[&[u8]]) -> TlsAcceptor {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a matching pair");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn an_https_target_is_verified_unless_its_tunnel_says_otherwise() {
    let target = Target::https(self_signed(&[b"http/1.1"])).await;
    let without_alpn = Target::https(self_signed(&[])).await;
    let node = Node::start().await;
    let port = target.address.port();
    let client = Client::publish(
        &node,
        &[
            &format!("target: https://localhost:{port}"),
            &format!("target: https://localhost:{port}\ninsecure: true"),
            &format!("target: https://127.0.0.1:{port}\ninsecure: true"),
            &format!("target: https://{}\ninsecure: true", without_alpn.address),
        ],
    )
    .await;
    let Some(answer) = get(&node, &client.hosts[0], "/", &[]).await else { return };
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(answer.text().contains("TLS"), "the page says which part failed: {answer:?}");
    for host in &client.hosts[1..] {
        for version in ["--http1.1", "--http2"] {
            let Some(answer) = get(&node, host, "/over-tls", &[version]).await else { return };
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.text().starts_with("GET /over-tls "), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_plain_target_behind_an_https_tunnel_is_502() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish(&node, &[&format!("target: https://{}\ninsecure: true", target.address)]).await;
    let Some(answer) = get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 502, "{answer:?}");
}

#[tokio::test]
async fn a_unix_socket_serves_http_and_raw_bytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = UnixTarget::http(&folder.path().join("pages.sock"));
    let bytes = UnixTarget::echo(&folder.path().join("bytes.sock"));
    let gone = format!("unix://{}", folder.path().join("gone.sock").display());
    let node = Node::start().await;
    let targets = [pages.url(), bytes.url(), gone].map(|url| format!("target: {url}"));
    let client = Client::publish(&node, &[&targets[0], &targets[1], &targets[2]]).await;
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = get(&node, &client.hosts[0], "/x", &[version]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().starts_with("GET /x "), "{answer:?}");
        let Some(answer) = get(&node, &client.hosts[2], "/x", &[version]).await else { return };
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    let mut stream = visit::tls(&node, &client.hosts[1], &[]).await;
    stream.write_all(b"raw bytes").await.expect("the gateway reads");
    stream.shutdown().await.expect("an open stream");
    let mut echoed = String::new();
    e2e::soon("the echo", tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut echoed))
        .await
        .expect("a clean end");
    assert_eq!(echoed, "raw bytes");
}

#[tokio::test]
async fn a_raw_target_asked_for_a_page_says_so() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.text().contains("carries raw TCP"), "{answer:?}");
    }
}

#[tokio::test]
async fn nginx_is_reached_through_a_tunnel() {
    let Some(nginx) = tool("nginx") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().display();
    fs::write(folder.path().join("page.html"), "from nginx\n").expect("the folder is writable");
    // A Unix socket, so that nginx needs no port of its own.
    let user = if fs::metadata("/root").is_ok_and(|_| fs::read_dir("/root").is_ok()) { "user root;" } else { "" };
    let config = format!(
        "{user} daemon off; pid {at}/pid; error_log stderr notice; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         server {{ listen unix:{at}/nginx.sock; root {at};\n\
         location = /seen {{ return 200 \"$http_x_forwarded_for $http_x_forwarded_proto $host\"; }} }} }}"
    );
    fs::write(folder.path().join("nginx.conf"), config).expect("the folder is writable");
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
    command.args(["-e", "stderr"]);
    let nginx = Process::start(command);
    nginx.logged("that it serves", |line| line.contains("start worker process")).await;
    let socket = folder.path().join("nginx.sock");
    let node = Node::start().await;
    let tunnel = format!("target: unix://{}\nheaderMode: hostname", socket.display());
    let client = Client::publish(&node, &[&tunnel]).await;
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = get(&node, client.host(), "/page.html", &[version]).await else { return };
        assert_eq!((answer.status, answer.text().as_str()), (200, "from nginx\n"), "{answer:?}");
        let Some(answer) = get(&node, client.host(), "/seen", &[version]).await else { return };
        assert_eq!(answer.text(), format!("127.0.0.1 https {}", client.host()));
        let Some(answer) = get(&node, client.host(), "/none", &[version]).await else { return };
        assert_eq!(answer.status, 404, "the target's own error pages pass: {answer:?}");
        assert!(answer.text().contains("nginx"), "{answer:?}");
    }
}
