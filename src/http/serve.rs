//! The accept loop: one task a connection, with limits and time-outs, and a way to end them.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::App;
use super::client::Peer;
use crate::shutdown::Stop;

/// Accepts connections until the gateway stops and the last stream has ended; until then, whoever
/// asks is told that it stops.
pub async fn serve(listener: TcpListener, router: Router, app: Arc<App>) {
    let permits = Arc::new(Semaphore::new(app.settings.server.max_connections));
    let open = builder(&app, true);
    let closing = builder(&app, false);
    let over = over(Arc::clone(&app));
    tokio::pin!(over);
    loop {
        // Held by the connection's task; without one left, new connections wait in the kernel.
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async { Some((permit.await.ok()?, listener.accept().await)) };
        let (permit, accepted) = tokio::select! {
            Some(accepted) = accepted => accepted,
            () = &mut over => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Whoever asks while the gateway stops gets one answer and is not kept.
                let builder = if app.stop.is_requested() { &closing } else { &open };
                app.stop.spawn(connection(
                    stream,
                    router.clone(),
                    builder.clone(),
                    Arc::clone(&app),
                    permit,
                ));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Resolves when the gateway stops and the last stream has ended.
pub async fn over(app: Arc<App>) {
    app.stop.requested().await;
    app.registry.emptied().await;
}

fn builder(app: &App, keep_alive: bool) -> Builder<OnStop> {
    let mut builder = Builder::new(OnStop(app.stop.clone()));
    let timer = TokioTimer::new();
    builder
        .http1()
        .keep_alive(keep_alive)
        .timer(timer.clone())
        .header_read_timeout(app.settings.server.header_timeout)
        .http2()
        .timer(timer)
        .keep_alive_interval(Duration::from_secs(20));
    builder
}

async fn connection(
    stream: TcpStream,
    router: Router,
    builder: Builder<OnStop>,
    app: Arc<App>,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    // Without one, the client has gone already.
    let Ok(peer) = stream.peer_addr() else { return };
    let peer = Peer(peer.ip());
    app.metrics.connections.inc();
    let asked = Arc::new(AtomicBool::new(false));
    let too_slow = CancellationToken::new();
    let (note, laggard) = (Arc::clone(&asked), Laggard(too_slow.clone()));
    let service = router.map_request(move |mut request: Request<Incoming>| {
        note.store(true, Ordering::Relaxed);
        // A connection of HTTP/2 carries the streams of many: one laggard does not end it.
        let shared = request.version() == Version::HTTP_2;
        let laggard = if shared { Laggard(CancellationToken::new()) } else { laggard.clone() };
        request.extensions_mut().insert(laggard);
        request.extensions_mut().insert(peer);
        request
    });
    let service = TowerToHyperService::new(service);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    // hyper's own time-out begins only when it knows which HTTP is spoken.
    let silent = async {
        sleep(app.settings.server.header_timeout).await;
        if asked.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    // Whoever comes while the gateway stops is answered first.
    let stopped = async {
        if app.stop.is_requested() {
            pending::<()>().await;
        }
        app.stop.requested().await;
    };
    // It still gets what waits for it, if it reads now.
    let lagging = async {
        too_slow.cancelled().await;
        sleep(LAST_CHANCE).await;
    };
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = silent => Ok(()),
        () = lagging => Ok(()),
        () = stopped => {
            // Finishes what is under way: streams end by themselves, each at its moment.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "connection ended");
    }
    app.metrics.connections.dec();
}

/// Marks a connection whose client reads too slowly: it is cut.
#[derive(Debug, Clone)]
pub(super) struct Laggard(pub(super) CancellationToken);

/// How long a client that was too slow may take for what still waits for it.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// Without file descriptors, accepting fails at once, again and again.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    sleep(Duration::from_millis(100)).await;
}

/// Lets hyper start its HTTP/2 streams as tasks that the drain waits for.
#[derive(Debug, Clone)]
struct OnStop(Stop);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnStop {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
