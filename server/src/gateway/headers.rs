//! Pure: which headers cross the gateway, and what it says about the visitor.
//!
//! Hop-by-hop fields by RFC 9110 §7.6.1; `Forwarded` by RFC 7239. A target may trust what is set here, because nothing
//! of the same meaning that a visitor sent gets past.

use super::status::Failure;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use specter_wire::name::Hostname;
use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

/// Counts how often a request has passed a gateway of this overlay.
const HOPS: HeaderName = HeaderName::from_static("specter-hops");

/// A request that has passed this many gateways goes round in circles.
const HOPS_MAX: u32 = 4;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removed besides what a `Connection` field names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Names by which proxies tell the visitor's address; compared after all punctuation is read as `-`, because many targets
/// know fields by the names of variables (`HTTP_X_FORWARDED_FOR`), which hold none.
const ABOUT_VISITOR: [&str; 6] =
    ["forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip"];
const ABOUT_VISITOR_PREFIXES: [&str; 4] = ["x-forwarded-", "x-client-cert", "x-original-", "cf-"];

/// The host that a request names, with its port if it has one.
///
/// # Errors
/// [`Failure::BadHost`] unless it is named once, validly; [`Failure::Misdirected`] if it is not `expected`.
pub(super) fn host(uri: &Uri, headers: &HeaderMap, expected: &Hostname) -> Result<String, Failure> {
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Failure::BadHost);
    }
    let field = match field {
        Some(value) => Some(value.to_str().map_err(|_| Failure::BadHost)?),
        None => None,
    };
    let authority = uri.authority().map(http::uri::Authority::as_str);
    // In HTTP/2 and the absolute form the authority counts, and a Host field beside it must agree.
    let text = match (authority, field) {
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => return Err(Failure::BadHost),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return Err(Failure::BadHost),
    };
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Failure::BadHost);
    }
    if name.eq_ignore_ascii_case(expected.as_str()) {
        return Ok(text.to_ascii_lowercase());
    }
    match Hostname::parse(name) {
        // With the root's dot behind it.
        Ok(name) if name == *expected => Ok(text.to_ascii_lowercase()),
        Ok(_) => Err(Failure::Misdirected),
        Err(_) => Err(Failure::BadHost),
    }
}

/// Whether the request asks for a WebSocket (RFC 6455 §4.1), the one upgrade that is let through.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let named = |name: HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    named(header::CONNECTION, "upgrade") && named(header::UPGRADE, "websocket")
}

/// Whether the request's body comes in a transfer coding that is not undone here (RFC 9112 §6.1): its bytes would reach the
/// target as another body than what was sent.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers.get_all(header::TRANSFER_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Whether the request is gRPC, which needs HTTP/2 up to the target for its trailers.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| text.starts_with("application/grpc"))
}

/// Makes a visitor's headers fit for the target.
///
/// # Errors
/// [`Failure::Loop`] after too many gateways.
pub(super) fn to_target(
    headers: &mut HeaderMap,
    visitor: SocketAddr,
    asked: &str,
    shown: &str,
    http2: bool,
) -> Result<(), Failure> {
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    remove_hop_by_hop(headers);
    // The gateway has told the visitor to go on already.
    headers.remove(header::EXPECT);
    // It announces fields that would follow the body of this hop.
    headers.remove(header::TRAILER);
    remove_about_visitor(headers);

    let hops = headers.get(HOPS).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()).unwrap_or(0);
    if hops >= HOPS_MAX {
        return Err(Failure::Loop);
    }
    headers.insert(HOPS, HeaderValue::from(hops + 1));

    join_cookies(headers);
    if http2 && trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // One text, of which the shorter fields are parts: this is done for every request.
    let mut text = String::with_capacity(shown.len() + asked.len() + 80);
    text.push_str(shown);
    text.push_str("for=");
    let ip_start = text.len();
    let ip = match visitor.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let _ = write!(text, "{ip}");
            ip_start..text.len()
        }
        IpAddr::V6(ip) => {
            let _ = write!(text, "\"[{ip}]\"");
            ip_start + 2..text.len() - 2
        }
    };
    text.push_str(";host=\"");
    let asked_start = text.len();
    text.push_str(asked);
    let asked = asked_start..text.len();
    text.push_str("\";proto=https");
    let text = Bytes::from(text);
    // Addresses and checked authorities are visible ASCII.
    let part = |range| HeaderValue::from_maybe_shared(text.slice(range)).map_err(|_| Failure::BadHost);
    headers.insert(header::HOST, part(0..shown.len())?);
    headers.insert(header::FORWARDED, part(shown.len()..text.len())?);
    headers.insert(X_FORWARDED_FOR, part(ip)?);
    headers.insert(X_FORWARDED_HOST, part(asked)?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    Ok(())
}

/// Makes the fields behind a visitor's body fit for the target, which may take them for headers.
pub(super) fn trailers_to_target(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_about_visitor(trailers);
}

/// Makes a target's headers fit for the visitor.
pub(super) fn to_visitor(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // It would name a port of the target's, not of the gateway's.
    headers.remove(header::ALT_SVC);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::try_from(token.trim()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn remove_about_visitor(headers: &mut HeaderMap) {
    let spoofed: Vec<HeaderName> = headers.keys().filter(|name| is_about_visitor(name)).cloned().collect();
    for name in spoofed {
        headers.remove(name);
    }
}

fn is_about_visitor(name: &HeaderName) -> bool {
    let name = name.as_str();
    let begins = |prefix: &str| {
        let reads_as = |(is, wanted): (u8, u8)| is == wanted || (wanted == b'-' && !is.is_ascii_alphanumeric());
        name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(reads_as)
    };
    ABOUT_VISITOR.iter().any(|known| known.len() == name.len() && begins(known))
        || ABOUT_VISITOR_PREFIXES.iter().any(|prefix| begins(prefix))
}

/// HTTP/2 may send cookies in several fields; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn crossed(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = headers(fields);
        let visitor = "192.0.2.7:4711".parse().expect("address");
        to_target(&mut map, visitor, "a.example.com:8443", "127.0.0.1:5173", false).expect("crosses");
        map
    }

    #[test]
    fn the_target_learns_the_truth_about_the_visitor() {
        let map = crossed(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-anything", "x"),
            ("x-real-ip", "6.6.6.6"),
            ("true-client-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-client-cert-subject", "root"),
            ("x.forwarded.for", "6.6.6.6"),
            ("cf-ipcountry", "XX"),
        ]);
        assert_eq!(map.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(map["x-forwarded-proto"], "https");
        assert_eq!(map["x-forwarded-host"], "a.example.com:8443");
        assert_eq!(map["forwarded"], "for=192.0.2.7;host=\"a.example.com:8443\";proto=https");
        assert_eq!(map["host"], "127.0.0.1:5173");
        for gone in [
            "x_forwarded_for",
            "x.forwarded.for",
            "x-forwarded-anything",
            "x-real-ip",
            "true-client-ip",
            "x-client-cert-subject",
            "cf-ipcountry",
        ] {
            assert!(!map.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn an_ipv6_visitor_is_quoted_and_a_mapped_one_is_ipv4() {
        let mut map = HeaderMap::new();
        to_target(&mut map, "[2001:db8::1]:5".parse().expect("address"), "a.b", "h", false).expect("crosses");
        assert_eq!(map["forwarded"], "for=\"[2001:db8::1]\";host=\"a.b\";proto=https");
        to_target(&mut map, "[::ffff:192.0.2.7]:5".parse().expect("address"), "a.b", "h", false).expect("crosses");
        assert_eq!(map["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn fields_for_one_hop_stop_here_and_cannot_take_others_along() {
        let map = crossed(&[
            ("connection", "keep-alive, x-secret, x-forwarded-for, host"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        for gone in
            ["connection", "keep-alive", "x-secret", "proxy-authorization", "te", "transfer-encoding", "upgrade"]
        {
            assert!(!map.contains_key(gone), "{gone}");
        }
        assert_eq!(map["accept"], "*/*");
        assert_eq!(map["x-forwarded-for"], "192.0.2.7");
        assert_eq!(map["host"], "127.0.0.1:5173");
    }

    #[test]
    fn a_request_that_goes_round_is_stopped() {
        let visitor = "192.0.2.7:1".parse().expect("address");
        let mut map = HeaderMap::new();
        for _ in 0..HOPS_MAX {
            to_target(&mut map, visitor, "a.b", "h", false).expect("crosses");
        }
        assert_eq!(to_target(&mut map, visitor, "a.b", "h", false), Err(Failure::Loop));
    }

    #[test]
    fn the_host_is_named_once_and_is_the_one_of_the_handshake() {
        let expected = Hostname::parse("a.example.com").expect("name");
        let ask = |uri: &str, fields: &[(&'static str, &'static str)]| {
            host(&uri.parse().expect("uri"), &headers(fields), &expected)
        };
        assert_eq!(ask("/", &[("host", "A.Example.com:8443")]), Ok("a.example.com:8443".to_owned()));
        assert_eq!(ask("https://a.example.com/", &[]), Ok("a.example.com".to_owned()));
        assert_eq!(ask("/", &[("host", "b.example.com")]), Err(Failure::Misdirected));
        assert_eq!(ask("https://b.example.com/", &[("host", "a.example.com")]), Err(Failure::BadHost));
        for fields in [&[][..], &[("host", "a.example.com"), ("host", "a.example.com")], &[("host", "a b")]] {
            assert_eq!(ask("/", fields), Err(Failure::BadHost));
        }
        assert_eq!(ask("/", &[("host", "a.example.com:x")]), Err(Failure::BadHost));
    }

    #[test]
    fn trailers_tell_nothing_about_the_visitor() {
        let mut map = headers(&[("x-forwarded-for", "6.6.6.6"), ("x_real_ip", "6.6.6.6"), ("grpc-status", "0")]);
        trailers_to_target(&mut map);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn only_websockets_are_upgrades() {
        assert!(is_websocket(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_websocket(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        assert!(!is_websocket(&headers(&[("upgrade", "websocket")])));
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        assert_eq!(crossed(&[("cookie", "a=1"), ("cookie", "b=2")])["cookie"], "a=1; b=2");
    }
}
