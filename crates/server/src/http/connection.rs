//! Connections: accepted within bounds, closed where the other side dawdles, ended in order.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::{router, tls};
use crate::config::{Config, Server};
use crate::service::{Service, StartError};

/// Headers of a request.
const HEADERS: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 32 << 10;
/// How long answers that are being sent have when the service ends.
const FAREWELL: Duration = Duration::from_secs(5);
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
            self.begin(stream, (permit, counted));
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

    fn begin(&self, stream: TcpStream, held: impl Send + 'static) {
        let idle = Duration::from_secs_f64(self.server.idle_seconds);
        let head = Duration::from_secs_f64(self.server.header_seconds);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_headers(HEADERS)
            .max_header_size(HEAD_BYTES);
        // The buffer alone does not bound a head: it is read into until it is full, and may then be twice as large.
        http.max_buf_size(HEAD_BYTES);
        let routes = TowerToHyperService::new(self.routes.clone());
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

/// A connection that is given up when the other side takes nothing for too long.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Impatient { stream, patience, waiting: None }
    }

    /// What came of writing: while nothing does, time runs.
    fn written<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let until = Instant::now() + self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        self.written(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.written(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
