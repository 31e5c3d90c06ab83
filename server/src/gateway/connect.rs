//! The plain HTTP port: `CONNECT` to a tunnel, for programs that know HTTP proxies; a redirect for everything else.

use super::{
    Gateway,
    body::Answer,
    headers,
    http::{HEAD_BYTES, HEAD_FIELDS, HEAD_TIMEOUT},
    sniff,
    socket::Socket,
    splice::{Status, Visitor, splice},
    status::{self, Failure},
    tcp,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use specter_wire::{error::ErrorCode, name::Hostname};
use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::Instrument as _;

/// A `CONNECT` is answered when the target is connected, and not later than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn serve(gateway: &Arc<Gateway>, socket: Socket, peer: SocketAddr) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(gateway, peer, request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = gateway.shutdown.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a visitor's plain HTTP connection failed");
    }
}

async fn answer(gateway: &Arc<Gateway>, peer: SocketAddr, mut request: Request<Incoming>) -> Response<Answer> {
    let answered = if request.method() == Method::CONNECT {
        connect(gateway, peer, &mut request).await
    } else {
        redirect(gateway, &request)
    };
    answered.unwrap_or_else(|failure| {
        tracing::debug!(?failure, "a plain HTTP request failed");
        failure.response()
    })
}

/// Opens the tunnel and answers 200 when its target is connected. The port asked for is not ours to choose: it is
/// ignored.
async fn connect(
    gateway: &Arc<Gateway>,
    peer: SocketAddr,
    request: &mut Request<Incoming>,
) -> Result<Response<Answer>, Failure> {
    let host = request.uri().host().ok_or(Failure::BadHost)?;
    let destination = sniff::destination(host, &gateway.apexes).and_then(|destination| destination.tunnel);
    let tunnel = destination.ok_or(Failure::Refused(ErrorCode::UnknownHostname))?;
    let opening = timeout(CONNECT_TIMEOUT, async {
        let mut stream = gateway.router.open(&tunnel, peer).await?;
        stream.connected().await?;
        Ok::<_, Failure>(stream)
    });
    let stream = opening.await.unwrap_or(Err(Failure::Refused(ErrorCode::TargetTimeout)))?;
    let upgrade = hyper::upgrade::on(request);
    gateway.shutdown.spawn(
        async move {
            match taken_over(upgrade).await {
                Ok((mut socket, already_read)) => {
                    socket.carries_raw_bytes();
                    tcp::report(splice(socket, already_read, stream, Status::Taken).await);
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a CONNECT was not taken over");
                }
            }
        }
        .in_current_span(),
    );
    // A page would be taken for the tunnel's first bytes: the answer has no body.
    Ok(Response::new(Answer::Page(http_body_util::Full::default())))
}

async fn taken_over(upgrade: OnUpgrade) -> Result<(Socket, Bytes), hyper::Error> {
    let upgraded = upgrade.await?;
    let parts = upgraded.downcast::<TokioIo<Socket>>().expect("`serve` makes connections of this type only");
    Ok((parts.io.into_inner(), parts.read_buf))
}

impl Visitor for Socket {
    fn abort(&self) {
        Self::abort(self);
    }
}

fn redirect(gateway: &Gateway, request: &Request<Incoming>) -> Result<Response<Answer>, Failure> {
    let name = named_host(request)?;
    let location = gateway.proxy.https_location(&name, request.uri()).ok_or(Failure::BadHost)?;
    let code = match *request.method() {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        // Keeps the method, which 301 does not for all clients.
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let mut response = status::page(code, "Use https.\n".to_owned());
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn named_host(request: &Request<Incoming>) -> Result<Hostname, Failure> {
    let field = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let text = request.uri().host().or(field).ok_or(Failure::BadHost)?;
    let name = text.rsplit_once(':').map_or(text, |(name, _)| name);
    let name = Hostname::parse(name).map_err(|_| Failure::BadHost)?;
    headers::host(request.uri(), request.headers(), &name).map(|_| name)
}
