//! `GET` of a declared stream: who may, what it listens to, and then its session's words as bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout, timeout_at};

use super::App;
use super::client::Peer;
use super::council::{self, Unwatchable, Wanted};
use super::options::StreamOptions;
use super::problem::Problem;
use crate::event::{Channel, Filter, Shape, Variant};
use crate::hub::{Arrival, Asker, Covered, Stopped};
use crate::session::{
    Client, Connected, OutboxSettings, Outgoing, Plan, Session, Ticket, Windows, not_available,
};
use crate::settings::DeliveryClass;
use crate::streams::{Declared, Pairs, Params, RequestError};
use crate::wire::{Exit, Opening, Outlet, Sse, Wire, Writer};

/// How long a client waits for the source before its stream begins without it.
const SOURCE_PATIENCE: Duration = Duration::from_secs(2);
const TRANSPORT: &str = "sse";

/// A declared stream behind its door: what all its sessions share is made once.
pub(super) struct StreamDoor {
    app: Arc<App>,
    stream: Arc<Declared>,
    shaped: Face,
    /// For clients that want no envelope.
    bare: Face,
}

/// A stream in one shape.
struct Face {
    plan: Arc<Plan>,
    /// In the order of [`Variant::ALL`].
    writers: [Arc<Writer>; Variant::ALL.len()],
}

impl StreamDoor {
    pub(super) fn new(app: &Arc<App>, stream: &Arc<Declared>) -> Arc<Self> {
        let (shaped, bare) =
            (Face::new(app, stream, &stream.shape), Face::new(app, stream, &stream.bare));
        Arc::new(Self { app: Arc::clone(app), stream: Arc::clone(stream), shaped, bare })
    }
}

impl Face {
    fn new(app: &App, stream: &Declared, shape: &Arc<dyn Shape>) -> Self {
        let writers = Variant::ALL.map(|variant| {
            let wire = Sse::new(Arc::clone(shape), variant, app.settings.compress.above_bytes);
            Arc::new(Writer::new(wire, &app.metrics))
        });
        Self { plan: Arc::new(plan(app, stream, shape)), writers }
    }

    #[expect(clippy::indexing_slicing, reason = "there is one for each variant")]
    fn writer(&self, variant: Variant) -> Arc<Writer> {
        Arc::clone(&self.writers[variant.index()])
    }
}

/// What a request for a stream is made of.
pub(super) struct Asked {
    path: Pairs,
    query: Pairs,
    headers: HeaderMap,
    client: Client,
    exit: Option<Exit>,
}

impl FromRequestParts<Arc<StreamDoor>> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        door: &Arc<StreamDoor>,
    ) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, door).await?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let Some(&peer) = parts.extensions.get::<Peer>() else {
            return Err(Problem::bad_request("nobody knows where this comes from"));
        };
        Ok(Self {
            path,
            query: parse_query(parts.uri.query().unwrap_or_default()),
            client: door.app.proxies.client(peer, &parts.headers),
            exit: parts.extensions.get::<Exit>().cloned(),
            headers: parts.headers.clone(),
        })
    }
}

pub(super) async fn open(
    State(door): State<Arc<StreamDoor>>,
    method: Method,
    asked: Asked,
) -> Result<Response, Problem> {
    if method == Method::HEAD {
        return Ok(event_stream(Body::empty()));
    }
    answer(&door, asked).await
}

/// The parameters stand in the body: for questions that are too long for a URL.
pub(super) async fn open_with_body(
    State(door): State<Arc<StreamDoor>>,
    mut asked: Asked,
    request: Request,
) -> Result<Response, Problem> {
    // Anybody may send one: nobody is to make the gateway hold what has come of it for long.
    let body = timeout(door.app.settings.server.header_timeout, Bytes::from_request(request, &()));
    let Ok(body) = body.await else {
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long"));
    };
    asked.query.extend(council::fields(&body?)?);
    answer(&door, asked).await
}

async fn answer(door: &StreamDoor, asked: Asked) -> Result<Response, Problem> {
    let (app, stream) = (&door.app, &door.stream);
    let Asked { path, query, headers, client, exit } = asked;
    let params = Params::new(path, query);
    let sought = sought(door, &params, &headers, client);
    // However it is asked for, a stream of the same channels is the same.
    let same = sought.as_ref().ok().map(|(_, sought)| sought);
    let pass = tokio::select! {
        biased;
        () = app.stop.requested() => return Ok(come_back(stream)),
        // Held before anything is read for it, so that it begins with what is newest then.
        pass = app.quota.enter(client, (&stream.name, same)) => pass?,
    };
    // Before a run is begun, which costs money: whoever finds no room is to watch none.
    let mut ticket = app.registry.enter(TRANSPORT, &stream.name, pass)?;
    let (options, sought) = match sought {
        Ok(sought) => sought,
        Err(text) => return Ok(refuse(stream, &text, &ticket)),
    };
    let filters = match sought {
        Sought::Channels(filters) => filters,
        Sought::Run(wanted) => {
            let watched = match wanted.watch(app, &headers).await {
                Ok(watched) => watched,
                Err(Unwatchable::Said(text)) => return Ok(refuse(stream, &text, &ticket)),
                Err(Unwatchable::Problem(problem)) => return Err(problem),
            };
            if let Some(viewer) = watched.viewer {
                ticket.hold(viewer);
            }
            let params = params.with(council::RUN, &watched.run);
            let filters = stream.filters(&params, &app.standing);
            filters.map_err(|error| Problem::bad_request(error.to_string()))?
        }
    };
    begin(door, options, (filters, client.address()), exit, ticket).await
}

/// What a client wants to hear.
#[derive(Hash)]
enum Sought {
    Channels(Arc<[Filter]>),
    Run(Wanted),
}

/// Reads what a client asks for. What is wrong is a text for it.
fn sought(
    door: &StreamDoor,
    params: &Params,
    headers: &HeaderMap,
    client: Client,
) -> Result<(StreamOptions, Sought), String> {
    let (app, stream) = (&door.app, &door.stream);
    let text = |error: RequestError| error.to_string();
    let options = StreamOptions::read(stream, params, headers).map_err(text)?;
    if let Some(council) = &stream.council {
        let asks = (&**stream, council);
        let wanted = Wanted::read(app, asks, params, (client, options.resume));
        return Ok((options, Sought::Run(wanted.map_err(|refusal| refusal.to_string())?)));
    }
    stream.check(params).map_err(text)?;
    let filters = stream.filters(params, &app.standing).map_err(text)?;
    Ok((options, Sought::Channels(filters)))
}

async fn begin(
    door: &StreamDoor,
    options: StreamOptions,
    (filters, by): (Arc<[Filter]>, Asker),
    exit: Option<Exit>,
    ticket: Ticket,
) -> Result<Response, Problem> {
    let app = &door.app;
    let face = if options.envelope { &door.shaped } else { &door.bare };
    let leaves = exit.as_ref().is_some_and(Exit::leads_to_socket);
    let (outlet, body) = Outlet::new(face.writer(options.variant), exit);

    let unreadable = match listen(app, (&filters, by), options.snapshot).await? {
        Ok(unreadable) => unreadable,
        Err(refused) => return Ok(refuse(&door.stream, &not_available(&refused), &ticket)),
    };
    let plan = Arc::clone(&face.plan);
    let session = Session::new(plan, ticket, Arc::clone(&filters), options.pace, outlet);
    let (subscriber, resume, snapshot) = (Box::new(session), options.resume, options.snapshot);
    let arrival = Arrival { subscriber, filters, by, resume, snapshot, unreadable };
    app.hub.arrive(arrival).await?;
    match body.opening().await {
        Opening::AlreadyOver => Ok(StatusCode::NO_CONTENT.into_response()),
        Opening::TurnedAway => Ok(come_back(&door.stream)),
        Opening::Open => {
            let mut response = event_stream(Body::from_stream(body));
            if leaves {
                // The connection carries this stream and ends with it.
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    }
}

/// Sees to it that the source listens, and that the last state of channels is read of which a key may
/// know more. Returns the channels whose state cannot be read, or the filters that the broker does not
/// allow.
async fn listen(
    app: &App,
    (filters, by): (&Arc<[Filter]>, Asker),
    snapshot: bool,
) -> Result<Result<Vec<Channel>, Vec<Filter>>, Stopped> {
    // Over time, the stream begins with what is known. What is read later comes as an event; a gap
    // is announced when the source is back.
    let until = Instant::now() + SOURCE_PATIENCE;
    let Ok(covered) = timeout_at(until, app.hub.cover(filters, by)).await else {
        return Ok(Ok(Vec::new()));
    };
    let Covered { unheard, refused } = covered?;
    if !refused.is_empty() {
        return Ok(Err(refused));
    }
    let states = app.states.as_ref().filter(|_| snapshot && !unheard.is_empty());
    Ok(Ok(match states {
        Some(states) => states.refresh(unheard, until).await,
        None => Vec::new(),
    }))
}

fn plan(app: &App, stream: &Declared, shape: &Arc<dyn Shape>) -> Plan {
    let outbox = &app.settings.outbox;
    let bytes = match stream.class {
        DeliveryClass::State => outbox.state_bytes,
        DeliveryClass::Log => outbox.log_bytes,
        DeliveryClass::Text => outbox.text_bytes,
    };
    Plan {
        stream: stream.name.clone(),
        shape: Arc::clone(shape),
        outbox: OutboxSettings { class: stream.class, bytes },
        windows: Windows::default(),
        keep_alive: app.settings.server.keep_alive,
        stalled_after: app.settings.server.stalled_after,
        metrics: Arc::clone(&app.metrics),
    }
}

/// What is wrong is said in the stream: an `EventSource` cannot read the body of an error.
fn refuse(stream: &Declared, error: &str, ticket: &Ticket) -> Response {
    let wire = Sse::new(Arc::clone(&stream.shape), Variant::default(), usize::MAX);
    let connected = Connected {
        client: ticket.id().to_owned(),
        channels: Vec::new(),
        recovered: false,
        unreadable: Vec::new(),
        truncated: 0,
        position: None,
    };
    let said = [Outgoing::Connected(Box::new(connected)), Outgoing::Error(error.to_owned())];
    let bytes: Vec<u8> = said.iter().flat_map(|said| wire.encode(said).body()).collect();
    event_stream(Body::from(bytes))
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
        // A proxy that compressed the stream would hold events back until it has enough of them.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// The parameters of a query, decoded; none if it cannot be read.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}
