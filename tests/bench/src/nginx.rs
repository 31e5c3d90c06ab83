//! nginx as a TLS proxy in front of an address: the yardstick without a tunnel.

use crate::{
    Outcome,
    certificates::{Certificates, NAME},
    path::{Path as Way, Speaks},
};
use cluster::process::Process;
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
};
use tokio::process::Command;

/// A port that was free a moment ago, for programs that cannot tell which one they drew.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts one worker with connections kept to `upstream`, and everything off that costs time or disk.
pub(crate) async fn start(
    program: &Path,
    folder: &Path,
    certificates: &Certificates,
    upstream: SocketAddr,
) -> Outcome<(Process, SocketAddr)> {
    std::fs::create_dir_all(folder)?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let config = folder.join("nginx.conf");
    // One process does all the work, as one worker would.
    let settings = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; tcp_nodelay on; sendfile off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 1000000000; keepalive_timeout 300s;
  upstream target {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {address} ssl http2 backlog=1024;
    server_name {NAME};
    ssl_certificate {certificate:?}; ssl_certificate_key {key:?}; ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size 0;
    location / {{
      proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;
    }}
  }}
}}
",
        certificate = certificates.certificate,
        key = certificates.key,
    );
    std::fs::write(&config, settings)?;
    let mut run = Command::new(program);
    run.arg("-p").arg(folder).arg("-c").arg(&config);
    Ok((Process::logging("nginx", run, folder)?, address))
}

/// The path through an nginx at `address`.
pub(crate) fn path(
    name: &'static str,
    address: SocketAddr,
    certificates: &Certificates,
    parts: crate::meter::Parts,
) -> Way {
    Way {
        name,
        address,
        host: NAME.to_owned(),
        speaks: Speaks::Http,
        parts,
        trust: vec![certificates.authority.clone()],
    }
}
