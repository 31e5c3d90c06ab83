//! Bodies on their way between visitor and target.

use super::{headers, pool::Lease};
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

/// How far a request's body has come: the wait for an answer counts from its last move.
#[derive(Debug)]
pub(super) struct Progress(Mutex<(Instant, bool)>);

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((Instant::now(), false))))
    }

    /// When it last moved.
    pub(super) fn last(&self) -> Instant {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether all of it is sent.
    pub(super) fn is_done(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn moved(&self, done: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), done);
    }
}

/// A visitor's request body; none for a request without one, or one that is sent again.
pub(super) struct Upload {
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
    pub(super) fn new(body: Incoming) -> Self {
        Self { body: Some(body), progress: Progress::new(), stall: None }.settled()
    }

    pub(super) fn empty() -> Self {
        Self { body: None, progress: Progress::new(), stall: None }.settled()
    }

    pub(super) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn settled(self) -> Self {
        if self.is_end_stream() {
            self.progress.moved(true);
        }
        self
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
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            this.progress.moved(frame.is_none() || body.is_end_stream());
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
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// What a visitor is answered: a page of ours, or the target's bytes. With their end the connection they came on is
/// free for the next request.
pub(super) enum Answer {
    Page(Full<Bytes>),
    Target { body: Incoming, lease: Option<Box<Lease>> },
}

impl Answer {
    /// The target's answer, on a connection that can be used again if there is a lease.
    pub(super) fn target(body: Incoming, lease: Option<Box<Lease>>) -> Self {
        match lease {
            Some(lease) if body.is_end_stream() => {
                lease.give_back();
                Self::Target { body, lease: None }
            }
            lease => Self::Target { body, lease },
        }
    }
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
            Self::Target { body, lease } => {
                if let Some(lease) = lease {
                    lease.asked();
                }
                let frame = ready!(Pin::new(&mut *body).poll_frame(context));
                if let Some(lease) = lease {
                    lease.served();
                }
                if (frame.is_none() || body.is_end_stream())
                    && let Some(lease) = lease.take()
                {
                    lease.give_back();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(page) => page.is_end_stream(),
            Self::Target { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(page) => page.size_hint(),
            Self::Target { body, .. } => body.size_hint(),
        }
    }
}
