//! Pure: what a visitor wants, from the name and the protocol that its TLS handshake told.

use specter_wire::{
    name::Hostname,
    version::{ALPN_CONNECT, ALPN_LINK},
};

/// ALPN name of HTTP/2 (RFC 9113 §3.2).
pub(super) const ALPN_HTTP2: &[u8] = b"h2";

/// ALPN name of HTTP/1.1 (RFC 7301 §6).
pub(super) const ALPN_HTTP1: &[u8] = b"http/1.1";

/// What the visitor is going to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Http1,
    Http2,
    /// Raw bytes behind one status byte.
    Connect,
    /// No visitor: a client, to which UDP is blocked.
    Link,
    /// Nothing was said.
    Unstated,
}

impl Speech {
    /// Of the protocol that was agreed; the handshake agrees on none that is not listed here.
    pub(super) fn from_alpn(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(ALPN_HTTP2) => Self::Http2,
            Some(ALPN_HTTP1) => Self::Http1,
            Some(ALPN_CONNECT) => Self::Connect,
            Some(ALPN_LINK) => Self::Link,
            Some(_) | None => Self::Unstated,
        }
    }
}

/// Where the visitor is going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The name that the visitor asked for.
    pub(super) name: Hostname,
    /// The tunnel as it is published: one label under an apex, the full name of a custom domain. None at an apex, which
    /// is the node itself.
    pub(super) tunnel: Option<Hostname>,
}

/// Where `name` leads; none for what is no hostname, and for more than one label under an apex.
pub(super) fn destination(name: &str, apexes: &[Hostname]) -> Option<Destination> {
    let name = Hostname::parse(name).ok()?;
    if apexes.contains(&name) {
        return Some(Destination { name, tunnel: None });
    }
    if let Some(label) = apexes.iter().find_map(|apex| name.label_under(apex)) {
        return Some(Destination { name, tunnel: Some(label) });
    }
    if name.is_label() || apexes.iter().any(|apex| name.is_within(apex)) {
        return None;
    }
    Some(Destination { tunnel: Some(name.clone()), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).expect(text)
    }

    fn tunnel(key: &str, full: &str) -> Option<Destination> {
        Some(Destination { name: name(full), tunnel: Some(name(key)) })
    }

    fn apex(full: &str) -> Option<Destination> {
        Some(Destination { name: name(full), tunnel: None })
    }

    #[test]
    fn names_lead_to_the_apex_a_tunnel_or_nowhere() {
        let apexes = [name("example.com"), name("eu.example.com"), name("localhost")];
        let go = |text| destination(text, &apexes);
        assert_eq!(go("EXAMPLE.com."), apex("example.com"));
        assert_eq!(go("a.example.com"), tunnel("a", "a.example.com"));
        assert_eq!(go("a.localhost"), tunnel("a", "a.localhost"));
        assert_eq!(go("shop.example.net"), tunnel("shop.example.net", "shop.example.net"));
        assert_eq!(go("evil-example.com"), tunnel("evil-example.com", "evil-example.com"));
        for nowhere in ["a.b.example.com", "single", "127.0.0.1", "", "a..b"] {
            assert_eq!(go(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn an_apex_below_another_is_an_apex() {
        let apexes = [name("example.com"), name("eu.example.com")];
        assert_eq!(destination("eu.example.com", &apexes), apex("eu.example.com"));
        assert_eq!(destination("a.eu.example.com", &apexes), tunnel("a", "a.eu.example.com"));
    }

    #[test]
    fn agreed_protocols_are_told_apart() {
        assert_eq!(Speech::from_alpn(Some(b"h2")), Speech::Http2);
        assert_eq!(Speech::from_alpn(Some(b"http/1.1")), Speech::Http1);
        assert_eq!(Speech::from_alpn(Some(b"specter-connect/1")), Speech::Connect);
        assert_eq!(Speech::from_alpn(Some(b"specter-link/1")), Speech::Link);
        assert_eq!(Speech::from_alpn(None), Speech::Unstated);
    }
}
