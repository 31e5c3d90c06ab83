//! One visitor's request: to the tunnel, and the answer back.

use super::{
    body::Answer,
    exchange::{Errand, exchange},
    headers,
    pool::Pool,
    sniff::Destination,
    socket::Socket,
    status::{self, Failure},
};
use crate::{route::Router, shutdown::Shutdown};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use specter_wire::{name::Hostname, stream::StreamKind};
use std::{net::SocketAddr, sync::Arc};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::server::TlsStream;
use tracing::Instrument as _;

/// Sends visitors' requests to tunnels.
pub(super) struct Proxy {
    router: Arc<Router>,
    pool: Pool,
    port: u16,
    shutdown: Shutdown,
}

impl Proxy {
    pub(super) fn new(router: Arc<Router>, port: u16, shutdown: Shutdown) -> Self {
        Self { router, pool: Pool::new(shutdown.clone()), port, shutdown }
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
        let grpc = request.version() == Version::HTTP_2 && headers::is_grpc(request.headers());
        let kind = if grpc { StreamKind::Http2 } else { StreamKind::Http1 };
        let search = self.router.search(key, kind).await?;
        let tunnel = search.tunnel().clone();
        let websocket = (request.version() == Version::HTTP_11 && headers::is_websocket(request.headers()))
            .then(|| hyper::upgrade::on(&mut request));

        let (mut parts, body) = request.into_parts();
        let shown = tunnel.host.as_deref().unwrap_or(&asked);
        headers::to_target(&mut parts.headers, visitor, &asked, shown, grpc)?;
        if websocket.is_some() {
            ask_upgrade(&mut parts.headers);
        }
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if grpc {
            let target = Uri::builder().scheme("http").authority(shown).path_and_query(path);
            parts.uri = target.build().map_err(|_| Failure::BadHost)?;
            parts.headers.remove(header::HOST);
            parts.version = Version::HTTP_2;
        } else {
            parts.uri = Uri::from(path);
            parts.version = Version::HTTP_11;
        }
        let errand = Errand { hostname: key, kind, visitor, limit: tunnel.header_timeout };
        let mut response = exchange(&self.pool, &errand, search, parts, body).await?;

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(visitor) = websocket else { return Err(Failure::BrokenAnswer) };
            let target = hyper::upgrade::on(&mut response);
            self.shutdown.spawn(join(visitor, target).in_current_span());
            headers::to_visitor(response.headers_mut());
            ask_upgrade(response.headers_mut());
        } else {
            headers::to_visitor(response.headers_mut());
        }
        Ok(response)
    }

    /// Where a request to the plain port is sent instead.
    pub(super) fn https_location(&self, name: &Hostname, uri: &Uri) -> Option<HeaderValue> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let location = match self.port {
            443 => format!("https://{name}{path}"),
            port => format!("https://{name}:{port}{path}"),
        };
        HeaderValue::try_from(location).ok()
    }
}

fn ask_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Carries an upgraded connection's bytes, an end in one direction apart from the other. Either side's death ends it; the
/// kernel watches over silent visitors.
async fn join(visitor: OnUpgrade, target: OnUpgrade) {
    let (visitor, target): (Upgraded, Upgraded) = match tokio::try_join!(visitor, target) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a WebSocket was not taken over"),
    };
    let parts =
        visitor.downcast::<TokioIo<TlsStream<Socket>>>().expect("`http` upgrades connections of this type only");
    let (mut visitor, mut target) = (parts.io.into_inner(), TokioIo::new(target));
    visitor.get_mut().0.carries_raw_bytes();
    let carried = async {
        target.write_all(&parts.read_buf).await?;
        tokio::io::copy_bidirectional(&mut visitor, &mut target).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, "a WebSocket broke off");
    }
}

fn apex_page() -> Response<Answer> {
    let text = "This is a node of a Specter network. Services live at https://<name>.<this host>.\n";
    status::page(StatusCode::OK, text.to_owned())
}
