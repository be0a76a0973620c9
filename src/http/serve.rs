//! The accept loop: one task a connection, with limits and time-outs, and a way to end them.
//!
//! A connection without TLS can leave hyper and go on as its socket alone; one with TLS stays, for
//! its bytes have to be encrypted.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Request, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tower::ServiceExt as _;

use super::App;
use super::client::Peer;
use crate::shutdown::Stop;
use crate::wire::{self, Connection, Count, Exit, Leave, Lent};

/// Accepts connections until the gateway stops and has settled; until then, whoever asks is told that
/// it stops.
pub async fn serve(listener: TcpListener, router: Router, app: Arc<App>) {
    let permits = Arc::new(Semaphore::new(app.settings.server.max_connections));
    let open = builder(&app, true);
    let closing = builder(&app, false);
    let settled = app.stop.settled();
    tokio::pin!(settled);
    loop {
        // Held by the connection's task; without one left, new connections wait in the kernel.
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async { Some((permit.await.ok()?, listener.accept().await)) };
        let (permit, accepted) = tokio::select! {
            Some(accepted) = accepted => accepted,
            () = &mut settled => break,
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

/// What hyper may hold for one stream that is not read, and the longest head of a request. Its own
/// bounds are several times that.
const HYPER_BYTES: usize = 65_536;

/// Settles the stop when the last stream has ended and no run of the council is under way.
pub async fn settle(app: Arc<App>) {
    app.stop.requested().await;
    app.registry.emptied().await;
    app.council.idle().await;
    app.stop.settle();
}

fn builder(app: &App, keep_alive: bool) -> Builder<OnStop> {
    let mut builder = Builder::new(OnStop(app.stop.clone()));
    let timer = TokioTimer::new();
    builder
        .http1()
        .keep_alive(keep_alive)
        .timer(timer.clone())
        .header_read_timeout(app.settings.server.header_timeout)
        .max_buf_size(HYPER_BYTES)
        .http2()
        .timer(timer)
        .max_send_buf_size(HYPER_BYTES)
        .keep_alive_interval(Duration::from_secs(20));
    builder
}

/// Serves one connection until it ends or leaves hyper.
async fn connection(
    stream: TcpStream,
    router: Router,
    builder: Builder<OnStop>,
    app: Arc<App>,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = app.tuning.apply(&stream) {
        tracing::debug!(%error, "a connection could not be set up");
    }
    let count = Count::new(app.metrics.connections.clone());
    // Without one, the client has gone already.
    let Ok(address) = stream.peer_addr() else { return };
    let peer = Peer(address.ip());
    if let Some(tls) = &app.tls {
        // Boxed, so that connections without TLS do not carry the room for it.
        let served = Box::pin(async {
            if let Some(stream) = tls.accept(stream, &app.stop).await {
                let visitor = Visitor { peer, exit: Exit::default(), lent: false };
                speak_http(stream, visitor, router, builder, &app).await;
            }
        });
        return served.await;
    }
    let (stream, exit) = (Arc::new(stream), Exit::default());
    let visitor = Visitor { peer, exit: exit.clone(), lent: true };
    let left = speak_http(Lent::new(&stream, &exit), visitor, router, builder, &app).await;
    // hyper is gone, and with it its view of the socket.
    let stream = Arc::into_inner(stream);
    match left {
        Some(Leave::Stream(slot)) => {
            let tuning = Arc::clone(&app.tuning);
            let connection = stream.map(|stream| Connection::new(stream, tuning, permit, count));
            if let Some(slot) = slot.upgrade() {
                slot.leave(connection);
            }
        }
        Some(Leave::Cut) => stream.iter().for_each(wire::reset),
        None => {}
    }
}

/// Who is at the other end, and how the connection leaves hyper.
struct Visitor {
    peer: Peer,
    exit: Exit,
    /// Whether hyper has but a view of the socket, so that a stream can go on without it.
    lent: bool,
}

/// Lets hyper serve the connection. Returns how it left hyper, if it did not end there.
async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    Visitor { peer, exit, lent }: Visitor,
    router: Router,
    builder: Builder<OnStop>,
    app: &App,
) -> Option<Leave> {
    let asked = Arc::new(AtomicBool::new(false));
    let (note, way_out) = (Arc::clone(&asked), exit.clone());
    let service = router.map_request(move |mut request: Request<Incoming>| {
        note.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        // A connection of HTTP/2 carries many streams, and HTTP/1.0 has no chunks.
        if request.version() != Version::HTTP_2 {
            let chunks = request.version() == Version::HTTP_11;
            let to_socket = lent && chunks && request.method() == Method::GET;
            request.extensions_mut().insert(way_out.of_request(to_socket));
        }
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
    tokio::pin!(silent, stopped);
    let mut stopping = false;
    poll_fn(|context| {
        let ended = served.as_mut().poll(context);
        // First: a stream that may leave when hyper ends is told no other way that its client is gone.
        if let Poll::Ready(leave) = exit.poll_leave(context) {
            return Poll::Ready(Some(leave));
        }
        if let Poll::Ready(result) = ended {
            if let Err(error) = result {
                tracing::trace!(%error, "connection ended");
            }
            return Poll::Ready(None);
        }
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            // Finishes what is under way: streams end by themselves, each at its moment.
            served.as_mut().graceful_shutdown();
            context.waker().wake_by_ref();
        }
        silent.as_mut().poll(context).map(|()| None)
    })
    .await
}

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
