//! One request to a tunnel's target and its answer: by which way, how long, and when again.
//!
//! A request that was not sent is sent over another connection. One that was sent is sent again only if it has no body,
//! its method is idempotent (RFC 9110 §9.2.2) and nothing of an answer came: when the connection it was put on had been
//! closed by the target at the same moment, or the link died, or the node on the way shows no life.

use super::{
    answered,
    body::{Answer, Progress, Upload, UploadError},
    pool::{Connection, Pool},
    status::Failure,
};
use crate::route::{Carrier, Refusal, Search, Way};
use http::{Method, Request, Response, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::TrySendError,
};
use specter_wire::{error::ErrorCode, name::Hostname, stream::StreamKind};
use std::{error::Error, net::SocketAddr, pin::pin, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Where a request goes.
pub(super) struct Errand<'a> {
    pub(super) hostname: &'a Hostname,
    pub(super) kind: StreamKind,
    pub(super) visitor: SocketAddr,
    /// Longest wait for the head of the answer, from the moment on at which the request's body last moved.
    pub(super) limit: Duration,
}

/// Sends the request and waits for the head of its answer.
///
/// # Errors
/// What the visitor is to be told.
pub(super) async fn exchange(
    pool: &Pool,
    errand: &Errand<'_>,
    mut search: Search<'_>,
    parts: Parts,
    body: Incoming,
) -> Result<Response<Answer>, Failure> {
    let spare = (body.is_end_stream() && is_idempotent(&parts.method)).then(|| parts.clone());
    let mut request = Request::from_parts(parts, Upload::new(body));
    let mut failure = Failure::Refused(ErrorCode::NoLiveLink);
    while let Some(way) = search.next().await {
        let way = &way;
        let mut may_reuse = way.is_live();
        loop {
            let used = if may_reuse { pool.take(way, errand.hostname, errand.kind).await } else { None };
            let reused = used.is_some();
            if reused && spare.is_none() && !way.proves_life().await {
                failure = Failure::Refused(ErrorCode::NoLiveLink);
                break;
            }
            let connection = match used {
                Some(connection) => connection,
                None => match pool.open(way, errand.hostname, errand.kind, errand.visitor).await {
                    Ok(connection) => connection,
                    Err(refusal) => {
                        failure = refusal.into();
                        break;
                    }
                },
            };
            let Missed { told, unsent, lost } =
                match attempt(pool, errand, way, connection, request, spare.is_some()).await {
                    Ok(response) => return Ok(response),
                    Err(missed) => *missed,
                };
            failure = told;
            let again = spare.as_ref().filter(|_| lost || (reused && failure == Failure::BrokenAnswer));
            request = match (unsent, again) {
                (Some(request), _) => request,
                (None, Some(parts)) => Request::from_parts(parts.clone(), Upload::empty()),
                (None, None) => return Err(failure),
            };
            if !reused || lost {
                break;
            }
            may_reuse = false;
        }
    }
    Err(failure)
}

/// A request without an answer.
struct Missed {
    told: Failure,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Upload>>,
    /// Whether the link died, or the node on the way shows no life.
    lost: bool,
}

async fn attempt(
    pool: &Pool,
    errand: &Errand<'_>,
    way: &Way,
    connection: Connection,
    request: Request<Upload>,
    may_repeat: bool,
) -> Result<Response<Answer>, Box<Missed>> {
    let progress = request.body().progress();
    match connection {
        Connection::Http1(mut connection) => {
            let answer = connection.sender.try_send_request(request);
            let response = head(&connection.carrier, answer, &progress, errand.limit, may_repeat).await?;
            let lease = (response.status() != http::StatusCode::SWITCHING_PROTOCOLS)
                .then(|| pool.lease(way, errand.hostname, connection, progress));
            Ok(response.map(|body| Answer::target(body, lease)))
        }
        Connection::Http2(mut connection, carrier) => {
            let answer = connection.try_send_request(request);
            let response = head(&carrier, answer, &progress, errand.limit, may_repeat).await?;
            Ok(response.map(|body| Answer::target(body, None)))
        }
    }
}

/// Waits for the head of an answer. A long silence makes the node look whether the link lives; if another node on the way
/// is silent altogether, a request that may be sent again is given up.
async fn head(
    carrier: &Carrier,
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>>,
    progress: &Progress,
    limit: Duration,
    may_repeat: bool,
) -> Result<Response<Incoming>, Box<Missed>> {
    let mut answer = pin!(answer);
    let pulse = carrier.pulse();
    // One timer for both waits: arming one costs each request.
    let mut doubt_at = Some(Instant::now() + carrier.patience());
    loop {
        let deadline = progress.last() + limit;
        let wake_at = doubt_at.map_or(deadline, |doubt_at| doubt_at.min(deadline));
        tokio::select! {
            biased;
            outcome = &mut answer => {
                if outcome.is_ok() {
                    carrier.answered();
                }
                return outcome.map_err(missed);
            }
            () = sleep_until(wake_at) => {
                let is_doubtful = doubt_at.take_if(|doubt_at| *doubt_at <= wake_at).is_some();
                if is_doubtful && carrier.doubt_since(pulse) && may_repeat {
                    return Err(Box::new(Missed { told: Failure::BrokenAnswer, unsent: None, lost: true }));
                }
                if progress.last() + limit <= wake_at {
                    let told = Failure::Refused(ErrorCode::TargetTimeout);
                    return Err(Box::new(Missed { told, unsent: None, lost: false }));
                }
            }
        }
    }
}

fn missed(mut error: TrySendError<Request<Upload>>) -> Box<Missed> {
    let unsent = error.take_message();
    let error = error.into_error();
    let refusal = answered::refusal(&error);
    let lost = refusal == Some(Refusal(ErrorCode::NoLiveLink));
    let told = match refusal {
        // The target may have done what was asked: "not connected" would say that it has not.
        Some(_) if lost && unsent.is_none() => Failure::BrokenAnswer,
        Some(refusal) => refusal.into(),
        None if comes_from_upload(&error) => Failure::BrokenRequest,
        None => Failure::BrokenAnswer,
    };
    Box::new(Missed { told, unsent, lost })
}

fn comes_from_upload(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<UploadError>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.0)
    }
}
