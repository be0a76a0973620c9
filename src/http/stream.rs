//! `GET` of a declared stream: who may, what it listens to, and then its session's words as bytes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::App;
use super::client::Peer;
use super::options::StreamOptions;
use super::problem::Problem;
use super::serve::Laggard;
use crate::event::{Filter, Shape, Variant};
use crate::hub::{Arrival, Stopped};
use crate::session::{
    Connected, Opening, Options, OutboxSettings, Outgoing, Pass, PipeReader, Plan, Session,
};
use crate::settings::DeliveryClass;
use crate::streams::{Declared, Params, RequestError};
use crate::wire::{Sse, Wire};

/// How long a client waits for the source before its stream begins without it.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);
const TRANSPORT: &str = "sse";

/// A declared stream behind its door: what all its sessions share is made once.
pub(super) struct StreamDoor {
    app: Arc<App>,
    stream: Arc<Declared>,
    plan: Arc<Plan>,
    /// For clients that want no envelope.
    bare: Arc<Plan>,
}

impl StreamDoor {
    pub(super) fn new(app: &Arc<App>, stream: &Arc<Declared>) -> Arc<Self> {
        let plan = |shape| Arc::new(plan(app, stream, shape));
        let (shaped, bare) = (plan(&stream.shape), plan(&stream.bare));
        Arc::new(Self { app: Arc::clone(app), stream: Arc::clone(stream), plan: shaped, bare })
    }
}

pub(super) async fn open(
    State(door): State<Arc<StreamDoor>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    (Extension(Laggard(too_slow)), Extension(peer)): (Extension<Laggard>, Extension<Peer>),
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (app, stream) = (&door.app, &door.stream);
    let path = path?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let params = Params::new(path, parse_query(query.as_deref().unwrap_or_default()));
    // Whoever comes back with another id comes back to the same stream.
    let same: Vec<_> = params.except("lastEventId").collect();
    let client = app.proxies.client(peer, &headers);
    let pass = tokio::select! {
        biased;
        () = app.stop.requested() => return Ok(come_back(stream)),
        // Held before anything is read for it, so that it begins with what is newest then.
        pass = app.quota.enter(client, (&stream.name, same)) => pass?,
    };
    let asked = StreamOptions::read(stream, &params, &headers)
        .and_then(|options| Ok((options, stream.filters(&params, &app.standing)?)));
    match asked {
        Ok((options, filters)) => begin(&door, options, filters, too_slow, pass).await,
        Err(error) => refuse(app, stream, &error, pass),
    }
}

async fn begin(
    door: &StreamDoor,
    options: StreamOptions,
    filters: Arc<[Filter]>,
    too_slow: CancellationToken,
    pass: Pass,
) -> Result<Response, Problem> {
    let app = &door.app;
    let ticket = app.registry.enter(TRANSPORT, &door.stream.name, pass)?;
    let plan = Arc::clone(if options.envelope { &door.plan } else { &door.bare });
    let wire =
        Sse::new(Arc::clone(&plan.shape), options.variant, app.settings.compress.above_bytes);

    listen(app, &filters, options.snapshot).await?;
    let own = Options { pace: options.pace, too_slow };
    let (session, reader) = Session::new(plan, ticket, Arc::clone(&filters), own);
    let (subscriber, resume, snapshot) = (Box::new(session), options.resume, options.snapshot);
    app.hub.arrive(Arrival { subscriber, filters, resume, snapshot }).await?;
    match reader.opening().await {
        Opening::AlreadyOver => Ok(StatusCode::NO_CONTENT.into_response()),
        Opening::TurnedAway => Ok(come_back(&door.stream)),
        Opening::Open => Ok(event_stream(body(app, reader, wire))),
    }
}

/// Sees to it that the source listens, and that the last state of channels not heard yet is read.
async fn listen(app: &App, filters: &Arc<[Filter]>, snapshot: bool) -> Result<(), Problem> {
    let listening = async {
        let stands = |filter: &Filter| app.standing.iter().any(|pattern| pattern.covers(filter));
        if !filters.iter().all(stands) {
            app.hub.cover(filters).await?;
        }
        let Some(states) = app.states.as_ref().filter(|_| snapshot) else { return Ok(()) };
        let unheard = app.hub.unheard(filters).await?;
        if !unheard.is_empty()
            && let Err(error) = states.refresh(unheard).await
        {
            tracing::warn!(%error, "the last state of a channel could not be read");
        }
        Ok(())
    };
    // Over time, the stream begins with what is known; a gap is announced when the source is back.
    timeout(SOURCE_PATIENCE, listening).await.unwrap_or(Ok::<(), Stopped>(()))?;
    Ok(())
}

fn plan(app: &App, stream: &Declared, shape: &Arc<dyn Shape>) -> Plan {
    let outbox = &app.settings.outbox;
    let bytes = match stream.class {
        DeliveryClass::State => outbox.state_bytes,
        DeliveryClass::Log => outbox.log_bytes,
    };
    Plan {
        stream: stream.name.clone(),
        shape: Arc::clone(shape),
        outbox: OutboxSettings { class: stream.class, bytes, replay_bytes: outbox.replay_bytes },
        keep_alive: app.settings.server.keep_alive,
        metrics: Arc::clone(&app.metrics),
    }
}

fn body(app: &App, mut reader: PipeReader, wire: Sse) -> Body {
    let frames = app.metrics.frames_sent_total.with_label_values(&[TRANSPORT]);
    let bytes = app.metrics.sent_bytes_total.with_label_values(&[TRANSPORT]);
    let latency = app.metrics.publish_to_flush_seconds.clone();
    Body::from_stream(async_stream::stream! {
        while let Some(said) = reader.next().await {
            let mut sent = 0;
            frames.inc_by(said.len() as u64);
            if let Some(event) = said.iter().find_map(live_event) {
                latency.observe(event.received.elapsed().as_secs_f64());
            }
            for outgoing in said {
                let frame = wire.encode(&outgoing).body();
                sent += frame.len() as u64;
                yield Ok::<_, Infallible>(frame);
            }
            bytes.inc_by(sent);
        }
    })
}

fn live_event(outgoing: &Outgoing) -> Option<&crate::event::Event> {
    match outgoing {
        Outgoing::Event(event) => Some(event),
        Outgoing::Batch(events) => events.first().map(|event| &**event),
        _ => None,
    }
}

/// What is wrong is said in the stream: an `EventSource` cannot read the body of an error.
fn refuse(
    app: &App,
    stream: &Declared,
    error: &RequestError,
    pass: Pass,
) -> Result<Response, Problem> {
    let ticket = app.registry.enter(TRANSPORT, &stream.name, pass)?;
    let wire = Sse::new(Arc::clone(&stream.shape), Variant::default(), usize::MAX);
    let connected = Connected {
        client: ticket.id().to_owned(),
        channels: Vec::new(),
        recovered: false,
        position: None,
    };
    let said = [Outgoing::Connected(Box::new(connected)), Outgoing::Error(error.to_string())];
    let bytes: Vec<u8> = said.iter().flat_map(|said| wire.encode(said).body()).collect();
    Ok(event_stream(Body::from(bytes)))
}

/// The node stops. Said in the stream: after any status but 200 an `EventSource` gives up for good,
/// and this one is to find the next node.
fn come_back(stream: &Declared) -> Response {
    let wire = Sse::new(Arc::clone(&stream.shape), Variant::default(), usize::MAX);
    let retry = Duration::from_millis(fastrand::u64(1000..=5000));
    event_stream(Body::from(wire.encode(&Outgoing::Shutdown { retry }).body()))
}

fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// The parameters of a query, decoded; none if it cannot be read.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}
