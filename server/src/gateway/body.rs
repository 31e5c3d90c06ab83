//! Bodies on their way between visitor and target.

use super::headers;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// A visitor that sends nothing of its request's body for this long loses the request.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// When a request's body last moved: the wait for an answer counts from there.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Instant>);

impl Progress {
    pub(super) fn now() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Instant::now())))
    }

    pub(super) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// A visitor's request body.
pub(super) struct Upload {
    /// None when there is nothing to send.
    body: Option<Incoming>,
    progress: Arc<Progress>,
    stall: Option<Pin<Box<Sleep>>>,
}

/// Why a request's body ended too early.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the visitor's connection failed")]
    Visitor(#[from] hyper::Error),
    #[error("the visitor stopped sending")]
    Stalled,
}

impl Upload {
    pub(super) fn new(body: Incoming, progress: Arc<Progress>) -> Self {
        Self { body: Some(body), progress, stall: None }
    }

    /// The body of a request that has none.
    pub(super) fn empty(progress: Arc<Progress>) -> Self {
        Self { body: None, progress, stall: None }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            this.progress.touch();
            this.stall = None;
            return Poll::Ready(frame.map(|frame| {
                let mut frame = frame?;
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers_to_target(trailers);
                }
                Ok(frame)
            }));
        }
        let stall = this.stall.get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Some(Err(UploadError::Stalled)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What a visitor is answered: a page of ours, or the target's bytes.
pub(super) enum Answer {
    Page(Full<Bytes>),
    Target(Incoming),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Page(page) => Pin::new(page).poll_frame(context).map_err(|never| match never {}),
            Self::Target(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page) => page.is_end_stream(),
            Self::Target(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page) => page.size_hint(),
            Self::Target(body) => body.size_hint(),
        }
    }
}
