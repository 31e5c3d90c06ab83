//! One request to a tunnel's target and its answer: by which way, how long, and when again.
//!
//! A request that was not sent is sent over another connection. One that was sent is sent again only if it has no body,
//! its method is idempotent (RFC 9110 §9.2.2) and nothing of an answer came: when the connection it was put on had been
//! closed by the target at the same moment, or the link died. If the link or the node on the way only shows no life, such a
//! request goes another way as well, and the first answer is taken.

use super::{
    answered,
    body::{Answer, Progress, Upload, UploadError},
    pool::{Connection, Pool},
    status::Failure,
};
use crate::route::{Carrier, Refusal, Search, Way};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
};
use http::{Method, Request, Response, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::TrySendError,
};
use specter_wire::{error::ErrorCode, name::Hostname, stream::StreamKind};
use std::{error::Error, net::SocketAddr, pin::pin, time::Duration};
use tokio::time::{sleep_until, timeout};

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
    let request = Request::from_parts(parts, Upload::new(body));
    Exchange { pool, errand, spare }.run(&mut search, request).await
}

/// One request.
struct Exchange<'a> {
    pool: &'a Pool,
    errand: &'a Errand<'a>,
    /// To be sent again, if the request may be.
    spare: Option<Parts>,
}

/// A request without an answer.
struct Missed {
    told: Failure,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Upload>>,
    /// Whether the link died.
    lost: bool,
}

/// The head of an answer: of the connection that was asked first, or of another one that was faster.
enum Head {
    Own(Response<Incoming>),
    Other(Response<Answer>),
}

impl Exchange<'_> {
    /// Tries one way after the other.
    async fn run(&self, search: &mut Search<'_>, mut request: Request<Upload>) -> Result<Response<Answer>, Failure> {
        let errand = self.errand;
        let mut failure = Failure::Refused(ErrorCode::NoLiveLink);
        while let Some(way) = search.next().await {
            let way = &way;
            let mut may_reuse = way.is_live();
            loop {
                let used = if may_reuse { self.pool.take(way, errand.hostname, errand.kind).await } else { None };
                let reused = used.is_some();
                if reused && self.spare.is_none() && !way.proves_life().await {
                    failure = Failure::Refused(ErrorCode::NoLiveLink);
                    break;
                }
                let connection = match used {
                    Some(connection) => connection,
                    None => match self.pool.open(way, errand.hostname, errand.kind, errand.visitor).await {
                        Ok(connection) => connection,
                        Err(refusal) => {
                            failure = refusal.into();
                            break;
                        }
                    },
                };
                let Missed { told, unsent, lost } = match self.attempt(search, way, connection, request).await {
                    Ok(response) => return Ok(response),
                    Err(missed) => *missed,
                };
                failure = told;
                let again = self.again().filter(|_| lost || (reused && failure == Failure::BrokenAnswer));
                request = match (unsent, again) {
                    (Some(request), _) | (None, Some(request)) => request,
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

    /// The request once more, if it may be sent again.
    fn again(&self) -> Option<Request<Upload>> {
        self.spare.clone().map(|parts| Request::from_parts(parts, Upload::empty()))
    }

    /// Sends the request by the ways that are left.
    fn elsewhere<'b>(
        &'b self,
        search: &'b mut Search<'_>,
        request: Request<Upload>,
    ) -> BoxFuture<'b, Result<Response<Answer>, Failure>> {
        Box::pin(self.run(search, request))
    }

    async fn attempt(
        &self,
        search: &mut Search<'_>,
        way: &Way,
        connection: Connection,
        request: Request<Upload>,
    ) -> Result<Response<Answer>, Box<Missed>> {
        let progress = request.body().progress();
        match connection {
            Connection::Http1(mut connection) => {
                let answer = connection.sender.try_send_request(request);
                match self.head(search, way, &connection.carrier, answer, &progress).await? {
                    Head::Own(response) => {
                        let lease = (response.status() != http::StatusCode::SWITCHING_PROTOCOLS)
                            .then(|| self.pool.lease(way, self.errand.hostname, connection, progress));
                        Ok(response.map(|body| Answer::target(body, lease)))
                    }
                    Head::Other(response) => Ok(response),
                }
            }
            Connection::Http2(mut connection, carrier) => {
                let answer = connection.try_send_request(request);
                match self.head(search, way, &carrier, answer, &progress).await? {
                    Head::Own(response) => Ok(response.map(|body| Answer::target(body, None))),
                    Head::Other(response) => Ok(response),
                }
            }
        }
    }

    /// Waits for the head of an answer. A long silence makes the node look whether the target is slow or what leads there
    /// is dead; then a request that may be sent again goes another way too: what is silent may only be late.
    async fn head(
        &self,
        search: &mut Search<'_>,
        way: &Way,
        carrier: &Carrier,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Upload>>>>,
        progress: &Progress,
    ) -> Result<Head, Box<Missed>> {
        let Errand { hostname, limit, .. } = *self.errand;
        let mut answer = pin!(answer);
        let pulse = carrier.pulse();
        // Most answers come in this time, and arm no other timer.
        if let Ok(outcome) = timeout(carrier.patience().min(limit), &mut answer).await {
            if outcome.is_ok() {
                carrier.answered();
            }
            return outcome.map(Head::Own).map_err(missed);
        }
        let mut silence = pin!(carrier.silence(hostname, pulse).fuse());
        let mut elsewhere = pin!(Fuse::terminated());
        let mut search = Some(search);
        loop {
            let deadline = progress.last() + limit;
            tokio::select! {
                biased;
                outcome = &mut answer => return match outcome {
                    Ok(response) => {
                        carrier.answered();
                        Ok(Head::Own(response))
                    }
                    Err(error) if elsewhere.is_terminated() => Err(missed(error)),
                    Err(_) => elsewhere.await.map(Head::Other).map_err(Missed::by_all),
                },
                () = &mut silence => {
                    way.miss(hostname);
                    if let Some(request) = self.again()
                        && let Some(search) = search.take()
                    {
                        elsewhere.set(self.elsewhere(search, request).fuse());
                    }
                }
                // If no other way leads there, this one may still do.
                Ok(response) = &mut elsewhere => return Ok(Head::Other(response)),
                () = sleep_until(deadline) => if progress.last() + limit <= deadline {
                    let told = Failure::Refused(ErrorCode::TargetTimeout);
                    return Err(Box::new(Missed { told, unsent: None, lost: false }));
                },
            }
        }
    }
}

impl Missed {
    /// All other ways were tried, too.
    fn by_all(told: Failure) -> Box<Self> {
        Box::new(Self { told, unsent: None, lost: true })
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
