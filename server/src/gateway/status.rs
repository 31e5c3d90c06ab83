//! Pure: how each failure looks to a visitor. Pages are plain text and say which part failed, never why inside.

use super::body::Answer;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use specter_wire::error::ErrorCode;

/// Why a request got no answer of the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A part of the overlay, or the target's client, said so.
    Refused(ErrorCode),
    /// The target ended the connection, or answered with something that is no HTTP.
    BrokenAnswer,
    /// The request's body failed on its way here.
    BrokenRequest,
    /// The request's body comes in a transfer coding that nobody here undoes.
    Coding,
    /// No single valid host is named.
    BadHost,
    /// The host named is not the one that the TLS handshake named.
    Misdirected,
    /// The method makes no sense here.
    Method,
    /// The request has come through this overlay too often: a tunnel leads to itself.
    Loop,
}

impl Failure {
    fn status(self) -> StatusCode {
        match self {
            Self::Refused(code) => match code {
                ErrorCode::UnknownHostname => StatusCode::NOT_FOUND,
                ErrorCode::NoLiveLink | ErrorCode::Limit | ErrorCode::Unavailable | ErrorCode::Draining => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                ErrorCode::TargetTimeout => StatusCode::GATEWAY_TIMEOUT,
                ErrorCode::TargetRefused
                | ErrorCode::TargetUnreachable
                | ErrorCode::TargetProtocol
                | ErrorCode::WrongKind => StatusCode::BAD_GATEWAY,
                ErrorCode::Malformed
                | ErrorCode::BadProof
                | ErrorCode::NotRegistered
                | ErrorCode::NotOwner
                | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::BrokenAnswer => StatusCode::BAD_GATEWAY,
            Self::BrokenRequest | Self::BadHost => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Refused(code) => match code {
                ErrorCode::UnknownHostname => "There is no tunnel of this name.",
                ErrorCode::NoLiveLink => "The tunnel exists, but its client is not connected at the moment.",
                ErrorCode::TargetRefused => "The service behind this tunnel refuses connections: it may be down.",
                ErrorCode::TargetTimeout => "The service behind this tunnel takes too long to answer.",
                ErrorCode::TargetUnreachable => "The service behind this tunnel cannot be reached from its client.",
                ErrorCode::TargetProtocol => {
                    "The service behind this tunnel failed the TLS handshake, or does not speak the protocol asked for."
                }
                ErrorCode::WrongKind => "This tunnel carries raw TCP, not HTTP. Reach it with `client-lite connect`.",
                ErrorCode::Limit => "The tunnel has all the connections it allows. Try again.",
                ErrorCode::Unavailable => "The node cannot look the tunnel up at the moment. Try again.",
                ErrorCode::Draining => "The node is shutting down. Try again.",
                ErrorCode::Malformed
                | ErrorCode::BadProof
                | ErrorCode::NotRegistered
                | ErrorCode::NotOwner
                | ErrorCode::Internal => "Something went wrong between the node and the tunnel's client.",
            },
            Self::BrokenAnswer => "The service behind this tunnel ended the connection without a whole answer.",
            Self::BrokenRequest => "The request ended before it was complete.",
            Self::Coding => "The request's body comes in a transfer coding other than chunks.",
            Self::BadHost => "The request names no valid host, or more than one.",
            Self::Misdirected => "The request names another host than its TLS connection was made for.",
            Self::Method => "This method is not served here. For CONNECT, use the plain HTTP port.",
            Self::Loop => "The tunnel leads back to itself.",
        }
    }

    /// The parts of the way, and how far the request came.
    fn way(self) -> [&'static str; 3] {
        const OK: &str = "ok";
        const FAILED: &str = "failed";
        const UNTRIED: &str = "not reached";
        match self {
            Self::Refused(code) => match code {
                ErrorCode::TargetRefused
                | ErrorCode::TargetTimeout
                | ErrorCode::TargetUnreachable
                | ErrorCode::TargetProtocol => [OK, OK, FAILED],
                ErrorCode::UnknownHostname
                | ErrorCode::NoLiveLink
                | ErrorCode::WrongKind
                | ErrorCode::Limit
                | ErrorCode::Malformed
                | ErrorCode::BadProof
                | ErrorCode::NotRegistered
                | ErrorCode::NotOwner => [OK, FAILED, UNTRIED],
                ErrorCode::Unavailable | ErrorCode::Draining | ErrorCode::Internal => [FAILED, UNTRIED, UNTRIED],
            },
            Self::BrokenAnswer => [OK, OK, FAILED],
            Self::BrokenRequest | Self::Coding | Self::BadHost | Self::Misdirected | Self::Method | Self::Loop => {
                [FAILED, UNTRIED, UNTRIED]
            }
        }
    }

    /// The page.
    pub(super) fn response(self) -> Response<Answer> {
        let status = self.status();
        let [gateway, client, service] = self.way();
        let text = format!(
            "{status}\n\n{}\n\n  you -> gateway      {gateway}\n  gateway -> client   {client}\n  client -> service   {service}\n",
            self.sentence()
        );
        let mut response = page(status, text);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

/// A page of our own.
pub(super) fn page(status: StatusCode, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Page(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_tell_failures_apart_by_their_status() {
        for (code, status) in [
            (ErrorCode::UnknownHostname, 404),
            (ErrorCode::NoLiveLink, 503),
            (ErrorCode::TargetRefused, 502),
            (ErrorCode::TargetTimeout, 504),
            (ErrorCode::WrongKind, 502),
        ] {
            assert_eq!(Failure::Refused(code).response().status(), status);
        }
        assert_eq!(Failure::BrokenAnswer.response().status(), 502);
        assert_eq!(Failure::Misdirected.response().status(), 421);
    }

    #[test]
    fn every_failure_is_an_error_and_no_page_can_be_taken_for_html() {
        for code in ErrorCode::ALL {
            let response = Failure::Refused(code).response();
            assert!(response.status().is_client_error() || response.status().is_server_error());
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        }
    }
}
