//! The built-in page of `dev`: says what Specter is and shows what the target behind a tunnel gets to see.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tracing::debug;

use crate::shutdown::Shutdown;

/// Serves the page on a loopback port until the program stops; returns the address.
///
/// # Errors
/// No port is to be had.
pub(super) async fn serve(shutdown: &Shutdown) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let tasks = shutdown.clone();
    shutdown.spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::select! {
            () = accept(&listener, &tasks, &room) => {}
            () = tasks.stopping() => {}
        }
    });
    Ok(address)
}

async fn accept(listener: &TcpListener, tasks: &Shutdown, room: &Arc<Semaphore>) {
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(room).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "no connection for the built-in page");
                // Out of file descriptors: others must end first.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let stopping = tasks.clone();
        tasks.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%error, "a connection of the built-in page ended");
                },
                () = stopping.stopping() => {}
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from(page(&request)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    Ok(response)
}

fn page<B>(request: &Request<B>) -> String {
    let mut rows = String::new();
    for (name, value) in request.headers() {
        let value = escape(&String::from_utf8_lossy(value.as_bytes()));
        rows.push_str(&format!("<tr><th>{}</th><td>{value}</td></tr>\n", escape(name.as_str())));
    }
    let line = format!("{} {}", request.method(), request.uri());
    PAGE.replace("{line}", &escape(&line)).replace("{rows}", &rows)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Placeholders of the page must not come from a visitor.
            '{' => escaped.push_str("&#123;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Visitors served at a time.
const CONNECTIONS: usize = 128;

/// How long a visitor may take for the head of a request, the wait for it on an open connection included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_visitor_sends_is_shown_and_never_run() {
        let request = Request::builder().uri("/?a&b").header("x-test", "<b>\"&'{rows}").body(()).unwrap();
        let page = page(&request);
        assert!(page.contains("<th>x-test</th><td>&lt;b&gt;&quot;&amp;&#39;&#123;rows}</td>"), "{page}");
        assert!(page.contains("GET /?a&amp;b") && !page.contains("<b>"), "{page}");
        assert!(!page.contains("{rows}") && !page.contains("{line}"), "{page}");
    }
}
