//! Connections: accepted within bounds, closed where the other side dawdles, ended in order.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::seat::Seat;
use super::{router, tls};
use crate::config::{Config, Server};
use crate::service::{Service, StartError};

/// Headers of a request.
const HEADERS: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 32 << 10;
/// Bytes a second that must be taken of what waits to be sent, on average over `server.idle_seconds`.
const LEAST_RATE: f64 = 1024.0;
/// Bytes that lie in a socket before they are sent, about: what is written to it shows what the other side takes, and not how
/// much room the system has.
const UNSENT_BYTES: u32 = 16 << 10;
/// How long answers that are being sent have when the service ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long accepting rests when the system has no more sockets.
const REST: Duration = Duration::from_millis(100);

/// Serves until `stop` is done, then drains. `ready` is told the address once jobs are taken.
///
/// # Errors
/// [`StartError`]: why it does not start.
pub async fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr, bool),
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let server = config.server.clone();
    let tls = match (&server.certificate, &server.private_key) {
        (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
        _ => None,
    };
    let refused = |error| StartError::Listen { address: server.listen.to_string(), error };
    let listener = TcpListener::bind(server.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let (service, _folder) = Service::start(config).await?;
    ready(address, tls.is_some());
    let accepting = Accepting {
        routes: router(service.clone()),
        service: service.clone(),
        open: Arc::new(Semaphore::new(server.connections)),
        by_address: Arc::default(),
        graceful: GracefulShutdown::new(),
        server,
        tls,
    };
    tokio::pin!(stop);
    tokio::select! {
        () = accepting.accept(&listener) => {}
        () = &mut stop => {}
    }
    tracing::info!("no new jobs are taken; what runs is brought to its end");
    // Who waits for its job is still answered.
    tokio::select! {
        () = accepting.accept(&listener) => {}
        () = service.stop() => {}
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, accepting.graceful.shutdown()).await.is_err() {
        tracing::info!("connections that were still open are closed");
    }
    service.close().await;
    tracing::info!("ended");
    Ok(())
}

struct Accepting {
    routes: axum::Router,
    service: Service,
    open: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    graceful: GracefulShutdown,
    server: Server,
    tls: Option<TlsAcceptor>,
}

#[cfg(target_os = "linux")]
fn keep_little_unsent(stream: &TcpStream) {
    // Where it cannot be, slow clients are found later.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

#[cfg(not(target_os = "linux"))]
fn keep_little_unsent(_: &TcpStream) {}

/// A connection of an address, counted until it is dropped.
struct Counted {
    of: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    service: Service,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.service.core.metrics.connection(-1.0);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.address);
            }
        }
    }
}

impl Accepting {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            let Ok(permit) = self.open.clone().acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            // One who has too many is cut off without an answer.
            let Some(counted) = self.count(from.ip()) else { continue };
            let _ = stream.set_nodelay(true);
            keep_little_unsent(&stream);
            self.begin(stream, from.ip(), (permit, counted));
        }
    }

    fn count(&self, address: IpAddr) -> Option<Counted> {
        let mut of = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of.entry(address).or_default();
        if *count >= self.server.connections_per_address {
            return None;
        }
        *count += 1;
        self.service.core.metrics.connection(1.0);
        Some(Counted { of: self.by_address.clone(), address, service: self.service.clone() })
    }

    fn begin(&self, stream: TcpStream, from: IpAddr, held: impl Send + 'static) {
        let idle = Duration::from_secs_f64(self.server.idle_seconds);
        let head = Duration::from_secs_f64(self.server.header_seconds);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_headers(HEADERS)
            .max_header_size(HEAD_BYTES);
        // The buffer alone does not bound a head: it is read into until it is full, and may then be twice as large.
        http.max_buf_size(HEAD_BYTES);
        let seat = Arc::new(Seat::new(from));
        let routes = self.routes.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(seat.clone());
            request
        });
        let routes = TowerToHyperService::new(routes);
        let watcher = self.graceful.watcher();
        let stream = Impatient::new(stream, idle);
        match self.tls.clone() {
            None => {
                let connection = watcher.watch(http.serve_connection(TokioIo::new(stream), routes));
                tokio::spawn(async move {
                    let _ = connection.await;
                    drop(held);
                });
            }
            Some(tls) => {
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(head, tls.accept(stream)).await {
                        let _ = watcher.watch(http.serve_connection(TokioIo::new(stream), routes)).await;
                    }
                    drop(held);
                });
            }
        }
    }
}

/// A connection that is given up when the other side takes too little of what waits for it.
///
/// Only time in which something waits counts: an answer that fits at once, and a stream on which little happens, take none. Once
/// `patience` of it has passed, [`LEAST_RATE`] must have been taken on average; then it is looked at anew.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since when something waits; none: nothing does.
    since: Option<Instant>,
    /// Ends when the patience does.
    timer: Option<Pin<Box<Sleep>>>,
    /// How long something waited before, and the bytes that were taken, since it was looked at last.
    waited: Duration,
    taken: f64,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Impatient { stream, patience, since: None, timer: None, waited: Duration::ZERO, taken: 0.0 }
    }

    /// What came of writing, with the bytes that were taken: while something waits, time runs.
    fn written<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &outcome {
            if let Some(since) = self.since.take() {
                self.waited += since.elapsed();
                self.timer = None;
            }
            self.taken += done.as_ref().map_or(0, bytes) as f64;
            return outcome;
        }
        loop {
            let since = *self.since.get_or_insert_with(Instant::now);
            let until = since + self.patience.saturating_sub(self.waited);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(timer.as_mut().poll(context));
            if self.taken < LEAST_RATE * self.patience.as_secs_f64() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            (self.since, self.timer, self.waited, self.taken) = (None, None, Duration::ZERO, 0.0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(outcome, |&bytes| bytes, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.written(outcome, |()| 0, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(outcome, |()| 0, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(outcome, |&bytes| bytes, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
