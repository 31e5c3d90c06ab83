//! quinn's runtime with one change: a connection's driver runs after all other tasks that can run.
//!
//! A small write of one stream wakes the driver. Run at once, it would send a packet with that stream's bytes alone; run
//! last, its packets carry what every stream has to say. Measured at a fifth to a third of the CPU time of small requests.

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::{
    io,
    net::UdpSocket,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

/// Wraps [`TokioRuntime`].
#[derive(Debug)]
pub(super) struct DeferRuntime(TokioRuntime);

impl Default for DeferRuntime {
    fn default() -> Self {
        Self(TokioRuntime)
    }
}

impl Runtime for DeferRuntime {
    fn new_timer(&self, instant: Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.0.new_timer(instant)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(Box::pin(Defer { inner: future, deferred: false }));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.0.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// Polls every second time: tokio runs a task that yields after all others and after looking for new input.
struct Defer {
    inner: Pin<Box<dyn Future<Output = ()> + Send>>,
    deferred: bool,
}

impl Future for Defer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.deferred {
            self.deferred = true;
            // Its first poll asks for the wake-up and is pending.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        self.deferred = false;
        self.inner.as_mut().poll(cx)
    }
}
