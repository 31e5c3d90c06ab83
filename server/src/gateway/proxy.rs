//! One visitor's request: to the tunnel, and the answer back.

use super::{
    body::{Answer, Progress, Upload},
    headers,
    pool::{self, Pool, Pools},
    sniff::Destination,
    status::{self, Failure},
};
use crate::{
    route::{Refusal, Router, Tunnel},
    shutdown::Shutdown,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::{client::legacy::ResponseFuture, rt::TokioIo};
use specter_wire::{error::ErrorCode, name::Hostname};
use std::{error::Error, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::sleep_until;
use tracing::Instrument as _;

/// Sends visitors' requests to tunnels.
pub(super) struct Proxy {
    router: Arc<Router>,
    pools: Pools,
    port: u16,
    shutdown: Shutdown,
}

impl Proxy {
    pub(super) fn new(router: Arc<Router>, port: u16, shutdown: Shutdown) -> Self {
        Self { pools: Pools::new(router.clone()), router, port, shutdown }
    }

    /// Answers a request that came on a connection made for `destination`. Never fails: a failure is a page.
    pub(super) async fn answer(
        &self,
        destination: &Destination,
        visitor: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let method = request.method().clone();
        match self.try_answer(destination, visitor, request).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(?failure, %method, hostname = %destination.name, "a request failed");
                failure.response()
            }
        }
    }

    async fn try_answer(
        &self,
        destination: &Destination,
        visitor: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Result<Response<Answer>, Failure> {
        if request.method() == Method::CONNECT {
            return Err(Failure::Method);
        }
        if headers::is_coded(request.headers()) {
            return Err(Failure::Coding);
        }
        let asked = headers::host(request.uri(), request.headers(), &destination.name)?;
        let Some(key) = &destination.tunnel else { return Ok(apex_page()) };
        let (tunnel, newest) = self.router.find(key).await?;
        if !tunnel.carries.http() {
            return Err(Failure::Refused(ErrorCode::WrongKind));
        }
        let websocket = (request.version() == Version::HTTP_11 && headers::is_websocket(request.headers()))
            .then(|| hyper::upgrade::on(&mut request));
        let http2 = request.version() == Version::HTTP_2 && headers::is_grpc(request.headers());

        let (mut parts, body) = request.into_parts();
        let shown = match tunnel.host.as_deref() {
            Some(fixed) => fixed,
            // Every spelling would be another connection to the target: a strange port is left out.
            None if http2 && !asked.ends_with(&format!(":{}", self.port)) => destination.name.as_str(),
            None => &asked,
        };
        headers::to_target(&mut parts.headers, visitor, &asked, shown, http2)?;
        if websocket.is_some() {
            ask_upgrade(&mut parts.headers);
        }
        let mut response = if http2 {
            parts.uri = pool_uri(shown, &parts.uri)?;
            parts.version = Version::HTTP_2;
            // The authority says it already, and two might be one too many for the target.
            parts.headers.remove(header::HOST);
            send(&self.pools.http2(key, newest), parts, body, &tunnel).await?
        } else {
            let (pool, authority) = self.pools.http1(key, newest);
            parts.uri = pool_uri(&authority, &parts.uri)?;
            parts.version = Version::HTTP_11;
            send(pool, parts, body, &tunnel).await?
        };

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(visitor) = websocket else { return Err(Failure::BrokenAnswer) };
            let target = hyper::upgrade::on(&mut response);
            self.shutdown.spawn(join(visitor, target).in_current_span());
            headers::to_visitor(response.headers_mut());
            ask_upgrade(response.headers_mut());
        } else {
            headers::to_visitor(response.headers_mut());
        }
        Ok(response.map(Answer::Target))
    }

    /// Where a request to the plain port is sent instead.
    pub(super) fn https_location(&self, name: &Hostname, uri: &Uri) -> Option<HeaderValue> {
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let location = match self.port {
            443 => format!("https://{name}{path}"),
            port => format!("https://{name}:{port}{path}"),
        };
        HeaderValue::try_from(location).ok()
    }
}

/// The URI of a request to a pool: see [`Pools`] for what its authority is.
fn pool_uri(authority: &str, asked: &Uri) -> Result<Uri, Failure> {
    let path = asked.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Uri::builder().scheme("http").authority(authority).path_and_query(path).build().map_err(|_| Failure::BadHost)
}

/// Sends a request and waits for the head of its answer, from the moment on at which the request's body last moved.
///
/// A safe request without a body is sent once more when the connection was gone (RFC 9110 §9.2.2); hyper itself repeats
/// only what it had not begun to send.
async fn send(pool: &Pool, parts: Parts, body: Incoming, tunnel: &Tunnel) -> Result<Response<Incoming>, Failure> {
    let again = (parts.method.is_safe() && body.is_end_stream()).then(|| parts.clone());
    let progress = Progress::now();
    let request = Request::from_parts(parts, Upload::new(body, progress.clone()));
    let mut outcome = head_in_time(pool.request(request), &progress, tunnel.header_timeout).await;
    if let (Some(parts), Some(Err(error))) = (again, &outcome)
        && pool::refusal(error).is_none()
        && pool::is_gone(error)
    {
        let progress = Progress::now();
        let request = Request::from_parts(parts, Upload::empty(progress.clone()));
        outcome = head_in_time(pool.request(request), &progress, tunnel.header_timeout).await;
    }
    match outcome {
        Some(Ok(response)) => Ok(response),
        Some(Err(error)) => Err(failure(&error)),
        None => Err(Failure::Refused(ErrorCode::TargetTimeout)),
    }
}

async fn head_in_time(
    response: ResponseFuture,
    progress: &Progress,
    limit: Duration,
) -> Option<Result<Response<Incoming>, hyper_util::client::legacy::Error>> {
    let mut response = pin!(response);
    loop {
        let deadline = progress.last() + limit;
        tokio::select! {
            biased;
            outcome = &mut response => return Some(outcome),
            () = sleep_until(deadline) => {
                if progress.last() + limit <= deadline {
                    return None;
                }
            }
        }
    }
}

fn failure(error: &(dyn Error + 'static)) -> Failure {
    if let Some(refusal) = pool::refusal(error) {
        return refusal.into();
    }
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<super::body::UploadError>() {
            return Failure::BrokenRequest;
        }
        if error.downcast_ref::<io::Error>().is_some_and(pool::is_link_lost) {
            return Failure::Refused(ErrorCode::NoLiveLink);
        }
        next = error.source();
    }
    Failure::BrokenAnswer
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.0)
    }
}

fn ask_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Carries an upgraded connection's bytes. Either side's death ends it; the kernel watches over silent visitors.
async fn join(visitor: OnUpgrade, target: OnUpgrade) {
    let (visitor, target): (Upgraded, Upgraded) = match tokio::try_join!(visitor, target) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a WebSocket was not taken over"),
    };
    let (mut visitor, mut target) = (TokioIo::new(visitor), TokioIo::new(target));
    if let Err(error) = tokio::io::copy_bidirectional(&mut visitor, &mut target).await {
        tracing::debug!(%error, "a WebSocket broke off");
    }
}

fn apex_page() -> Response<Answer> {
    let text = "This is a node of a Specter network. Services live at https://<name>.<this host>.\n";
    status::page(StatusCode::OK, text.to_owned())
}
