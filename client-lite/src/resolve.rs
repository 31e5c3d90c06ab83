//! Names to addresses. Callers bound the wait.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Every address of a host, in the system's order of preference; never none.
///
/// Names under `localhost` mean this machine even where the system's resolver does not know them (RFC 6761 §6.3).
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: io::Result<Vec<SocketAddr>> = match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(error),
    };
    match found {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) | Err(_) if is_localhost(host) => {
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            Ok(loopback.map(|ip| SocketAddr::new(ip, port)).to_vec())
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")),
        Err(error) => Err(error),
    }
}

/// Whether a name is `localhost` or lies below it.
pub(crate) fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_under_localhost_are_this_machine() {
        let addresses = resolve("some-tunnel.localhost", 7).await.expect("loopback");
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    }

    #[test]
    fn only_whole_labels_count_as_localhost() {
        assert!(is_localhost("LOCALHOST."));
        assert!(!is_localhost("notlocalhost"));
        assert!(!is_localhost("localhost.example.com"));
    }
}
