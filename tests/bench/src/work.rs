//! What is measured on each path.

use crate::{
    Outcome,
    http1::{BUFFER_BYTES, Connection, Requests},
    http2,
    meter::{Cpu, Meter, Reading},
    path::{Path, Speaks},
    stats::percentile,
};
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::timeout,
};

/// One kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// One visitor gets a body of that many bytes.
    Download { bytes: u64 },
    /// One visitor sends a body of that many bytes.
    Upload { bytes: u64 },
    /// Small requests on kept connections, each sent when the one before was answered.
    Requests { concurrency: usize, duration: Duration },
    /// The same over HTTP/2, on at most [`http2::CONNECTIONS`] connections.
    Http2 { concurrency: usize, duration: Duration },
    /// New visitors, one after another: TCP, TLS and the first byte of an answer.
    FirstByte { duration: Duration },
}

/// What one round of one case gave.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Sample {
    /// GiB, requests or visitors.
    pub(crate) units: f64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: Cpu,
    pub(crate) foreign: f64,
    /// Median and 99th percentile, where each unit has a time.
    pub(crate) latency_us: Option<[f64; 2]>,
}

/// Longest that one round of one case may take.
const ROUND: Duration = Duration::from_secs(120);

/// Requests on each connection before anything is measured.
const WARM_UP: usize = 20;

const GIB: f64 = (1_u64 << 30) as f64;

impl Work {
    /// Whether a path can do it.
    pub(crate) fn suits(self, path: &Path) -> bool {
        match self {
            Self::Http2 { .. } => path.speaks == Speaks::Http,
            Self::Download { .. } | Self::Upload { .. } | Self::Requests { .. } | Self::FirstByte { .. } => true,
        }
    }

    /// Whether its unit is the GiB.
    pub(crate) fn is_bulk(self) -> bool {
        match self {
            Self::Download { .. } | Self::Upload { .. } => true,
            Self::Requests { .. } | Self::Http2 { .. } | Self::FirstByte { .. } => false,
        }
    }

    /// Does it once.
    pub(crate) async fn run(self, path: &Path) -> Outcome<Sample> {
        let round = LocalSet::new();
        let done = round.run_until(async {
            match self {
                Self::Download { bytes } => bulk(path, bytes, false).await,
                Self::Upload { bytes } => bulk(path, bytes, true).await,
                Self::Requests { concurrency, duration } => requests(path, concurrency, duration).await,
                Self::Http2 { concurrency, duration } => http2::requests(path, concurrency, duration).await,
                Self::FirstByte { duration } => first_byte(path, duration).await,
            }
        });
        timeout(ROUND, done).await.map_err(|_| format!("{self}/{} took too long", path.name))?
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Download { .. } => f.write_str("download"),
            Self::Upload { .. } => f.write_str("upload"),
            Self::Requests { concurrency, .. } => write!(f, "requests-{concurrency}"),
            Self::Http2 { concurrency, .. } => write!(f, "http2-{concurrency}"),
            Self::FirstByte { .. } => f.write_str("first-byte"),
        }
    }
}

impl Sample {
    fn new(units: f64, reading: Reading) -> Self {
        let Reading { wall, cpu, foreign } = reading;
        Self { units, wall_s: wall.as_secs_f64(), cpu_s: cpu, foreign, latency_us: None }
    }

    /// A sample of as many units as there are times.
    pub(crate) fn timed(mut times_ns: Vec<u64>, reading: Reading) -> Self {
        times_ns.sort_unstable();
        let at = |share| percentile(&times_ns, share) as f64 / 1e3;
        let latency_us = Some([at(0.5), at(0.99)]);
        Self { latency_us, ..Self::new(times_ns.len() as f64, reading) }
    }
}

async fn bulk(path: &Path, bytes: u64, up: bool) -> Outcome<Sample> {
    let (visitors, requests) = (path.visitors(false)?, Requests::to(path));
    let mut connection = Connection::open(&visitors, path).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    connection.exchange(&requests.small, &mut buffer).await?;
    let meter = Meter::start(&path.parts);
    if up {
        connection.upload(&requests, bytes, &mut buffer).await?;
    } else {
        let came = connection.exchange(&requests.large(bytes), &mut buffer).await?;
        if came != bytes {
            return Err(format!("{came} bytes came instead of {bytes}").into());
        }
    }
    Ok(Sample::new(bytes as f64 / GIB, meter.read()))
}

async fn requests(path: &Path, concurrency: usize, duration: Duration) -> Outcome<Sample> {
    let (visitors, requests) = (path.visitors(false)?, Rc::new(Requests::to(path)));
    let mut connections = Vec::with_capacity(concurrency);
    let mut buffer = vec![0; BUFFER_BYTES];
    for _ in 0..concurrency {
        let mut connection = Connection::open(&visitors, path).await?;
        for _ in 0..WARM_UP {
            connection.exchange(&requests.small, &mut buffer).await?;
        }
        connections.push(connection);
    }
    let (times, over) = (Rc::new(RefCell::new(Vec::with_capacity(1 << 18))), Rc::new(Cell::new(false)));
    let mut running = JoinSet::new();
    let meter = Meter::start(&path.parts);
    for mut connection in connections {
        let (requests, times, over) = (requests.clone(), times.clone(), over.clone());
        running.spawn_local(async move {
            let mut buffer = vec![0; 4096];
            while !over.get() {
                let begun = Instant::now();
                connection.exchange(&requests.small, &mut buffer).await?;
                times.borrow_mut().push(begun.elapsed().as_nanos() as u64);
            }
            Outcome::Ok(connection)
        });
    }
    let reading = until(duration, &mut running, &meter, &over).await?;
    let times = times.take();
    Ok(Sample::timed(times, reading))
}

/// Lets tasks run for a while, reads the meter, and waits for them. A task that fails before fails all.
pub(crate) async fn until<T: 'static>(
    duration: Duration,
    running: &mut JoinSet<Outcome<T>>,
    meter: &Meter<'_>,
    over: &Cell<bool>,
) -> Outcome<Reading> {
    if let Ok(Some(ended)) = timeout(duration, running.join_next()).await {
        ended??;
    }
    let reading = meter.read();
    over.set(true);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(reading)
}

async fn first_byte(path: &Path, duration: Duration) -> Outcome<Sample> {
    let (visitors, requests) = (path.visitors(false)?, Requests::to(path));
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut times = Vec::new();
    let meter = Meter::start(&path.parts);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let begun = Instant::now();
        Connection::open(&visitors, path).await?.first_byte(&requests.small, &mut buffer).await?;
        times.push(begun.elapsed().as_nanos() as u64);
    }
    Ok(Sample::timed(times, meter.read()))
}
