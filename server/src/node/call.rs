//! What travels from a [`super::Handle`] to the store thread.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{
    Error, Key, OpId,
    register::{Register, Write, WriteAnswer},
};

/// One queued call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) request: Request,
    pub(super) deadline: Instant,
}

pub(super) enum Request {
    /// Answers itself from the register.
    Read(Question),
    Write {
        op_id: OpId,
        write: Write,
        reply: Reply,
    },
    Stop(oneshot::Sender<()>),
}

pub(super) type Question = Box<dyn FnOnce(Result<&Register, Error>) + Send>;
pub(super) type Reply = oneshot::Sender<Result<WriteAnswer, Error>>;

impl std::fmt::Debug for Request {
    /// Without the contents: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read(_) => "Read",
            Self::Write { .. } => "Write",
            Self::Stop(_) => "Stop",
        })
    }
}

impl Request {
    pub(super) fn refuse(self, error: Error) {
        match self {
            Self::Read(question) => question(Err(error)),
            Self::Write { reply, .. } => answer_to(reply, Err(error)),
            Self::Stop(reply) => {
                reply.send(()).ok();
            }
        }
    }
}

/// Answers a write, whose caller may have given up.
pub(super) fn answer_to(reply: Reply, answer: Result<WriteAnswer, Error>) {
    reply.send(answer).ok();
}
