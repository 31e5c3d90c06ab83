//! Small requests of visitors that speak HTTP/2: few connections, many requests on each at a time, as browsers do.

use crate::{
    Outcome,
    meter::Meter,
    path::{Path, Visitors},
    target::SMALL_PATH,
    work::{Sample, until},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Connections that the requests share.
pub(crate) const CONNECTIONS: usize = 4;

/// Measures requests of which `concurrency` are under way at a time.
pub(crate) async fn requests(path: &Path, concurrency: usize, duration: Duration) -> Outcome<Sample> {
    let visitors = path.visitors(true)?;
    let uri = format!("https://{}{SMALL_PATH}", path.host);
    // Ended, with all connections, when this function returns.
    let mut drivers = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS.min(concurrency) {
        let mut connection = connect(&visitors, &mut drivers).await?;
        exchange(&mut connection, &uri).await?;
        connections.push(connection);
    }
    let (times, over) = (Rc::new(RefCell::new(Vec::with_capacity(1 << 18))), Rc::new(Cell::new(false)));
    let mut running = JoinSet::new();
    let meter = Meter::start(&path.parts);
    for mut connection in connections.iter().cycle().take(concurrency).cloned() {
        let (uri, times, over) = (uri.clone(), times.clone(), over.clone());
        running.spawn_local(async move {
            while !over.get() {
                let begun = Instant::now();
                exchange(&mut connection, &uri).await?;
                times.borrow_mut().push(begun.elapsed().as_nanos() as u64);
            }
            Outcome::Ok(())
        });
    }
    let reading = until(duration, &mut running, &meter, &over).await?;
    let times = times.take();
    Ok(Sample::timed(times, reading))
}

async fn connect(visitors: &Visitors, drivers: &mut JoinSet<()>) -> Outcome<SendRequest<Empty<Bytes>>> {
    let stream = TokioIo::new(visitors.connect().await?);
    let (connection, driver) = http2::handshake(TokioExecutor::new(), stream).await?;
    drivers.spawn_local(async move {
        // A failure shows in the requests.
        let _ = driver.await;
    });
    Ok(connection)
}

async fn exchange(connection: &mut SendRequest<Empty<Bytes>>, uri: &str) -> Outcome<()> {
    connection.ready().await?;
    let response = connection.send_request(Request::get(uri).body(Empty::new())?).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("the answer is {}", response.status()).into());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
