//! `POST …/publish/{channel}` and `POST …/publish`: events from those who have no Redis at hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use subtle::ConstantTimeEq;

use super::App;
use super::problem::Problem;
use crate::event::{Channel, OWN_CHANNELS, Payload, without_bare_words};
use crate::settings::Unknown;
use crate::source::Publication;

#[derive(Debug, Deserialize)]
struct Item<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
    id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Once {
    id: Option<String>,
}

const MOST_ID_BYTES: usize = 256;

/// The body is the payload. `?id=` or `Idempotency-Key` makes it idempotent.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    channel: Result<Path<String>, PathRejection>,
    once: Result<Query<Once>, QueryRejection>,
    MayPublish { key }: MayPublish,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path(channel) = channel?;
    let id = once?.0.id.or(key);
    check_id(id.as_deref())?;
    let publication = read(&app, &channel, &body?, id)?;
    publish(&app, vec![publication]).await
}

/// The body is `[{"channel","data","id"?}]`. All or nothing is published. `?id=` or
/// `Idempotency-Key` is the id of the call: that of an event that has none of its own is this one
/// with its place.
pub(super) async fn many(
    State(app): State<Arc<App>>,
    once: Result<Query<Once>, QueryRejection>,
    MayPublish { key }: MayPublish,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let call = once?.0.id.or(key);
    check_id(call.as_deref())?;
    let body = body?;
    let mut items: Result<Vec<Item<'_>>, _> = serde_json::from_slice(&body);
    let repaired = items.as_ref().err().and_then(|_| without_bare_words(&body));
    if let Some(repaired) = &repaired {
        items = serde_json::from_slice(repaired);
        app.metrics.events_repaired_total.inc();
    }
    let items = items.map_err(|error| {
        Problem::bad_request(format!("expected [{{\"channel\",\"data\",\"id\"?}}]: {error}"))
    })?;
    if items.len() > app.settings.publish.max_events {
        let most = app.settings.publish.max_events;
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("at most {most} events in one call"),
        ));
    }
    let publication = |(place, item): (usize, Item<'_>)| {
        check_id(item.id.as_deref())?;
        let id = item.id.or_else(|| Some(format!("{}#{place}", call.as_deref()?)));
        read(&app, &item.channel, item.data.get().as_bytes(), id)
    };
    let publications = items.into_iter().enumerate().map(publication).collect::<Result<_, _>>()?;
    publish(&app, publications).await
}

fn read(app: &App, channel: &str, data: &[u8], id: Option<String>) -> Result<Publication, Problem> {
    if channel.starts_with('/') || channel.ends_with('/') {
        let detail = format!("a channel has no slash at its beginning or its end: {channel:?}");
        return Err(Problem::bad_request(detail));
    }
    if channel.starts_with(OWN_CHANNELS) {
        let detail = format!("channels that begin with {OWN_CHANNELS} are the gateway's own");
        return Err(Problem::bad_request(detail));
    }
    let channel = Channel::new(channel)?;
    let (payload, repaired) = Payload::parse_leniently(data, app.settings.events.max_bytes)?;
    app.metrics.events_repaired_total.inc_by(u64::from(repaired));
    let payload = app.inlet.read(&channel, payload).ok_or_else(|| {
        Problem::bad_request(format!("the streams of {channel} show JSON objects only"))
    })?;
    Ok(Publication { channel, payload, id })
}

fn check_id(id: Option<&str>) -> Result<(), Problem> {
    if id.is_some_and(|id| id.is_empty() || id.len() > MOST_ID_BYTES) {
        return Err(Problem::bad_request("an id has 1 to 256 bytes"));
    }
    // What of a query is not UTF-8 was replaced: ids would be the same that are not.
    if id.is_some_and(|id| id.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(Problem::bad_request("the id is not UTF-8"));
    }
    Ok(())
}

async fn publish(app: &App, publications: Vec<Publication>) -> Result<Response, Problem> {
    let channels: BTreeSet<_> = publications.iter().map(|p| p.channel.clone()).collect();
    let declaring = |channel: &Channel| app.streams.iter().filter(|s| s.declares(channel)).count();
    let unknown = channels.iter().find(|channel| declaring(channel) == 0);
    if let (Unknown::Refuse, Some(channel)) = (app.settings.publish.unknown, unknown) {
        let detail = format!("no stream declares {channel}; nothing was published");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let streams: usize = channels.iter().map(declaring).sum();
    let total = publications.len();
    app.publisher.ready().await;
    let known = app.publisher.publish(publications).await?;
    app.metrics.events_published_total.inc_by((total - known) as u64);
    let subscribers = app.hub.listeners(channels.into_iter().collect()).await?;
    let mut answer = json!({"accepted": total, "streams": streams, "subscribers": subscribers});
    if let (true, Some(answer)) = (known > 0, answer.as_object_mut()) {
        answer.insert("duplicates".to_owned(), known.into());
    }
    Ok((StatusCode::ACCEPTED, axum::Json(answer)).into_response())
}

/// Asked before the body is read: who may not publish cannot make the gateway hold bytes.
pub(super) struct MayPublish {
    /// The `Idempotency-Key` that came along.
    pub(super) key: Option<String>,
}

impl FromRequestParts<Arc<App>> for MayPublish {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        authorise(app, &parts.headers)?;
        let key = parts.headers.get("idempotency-key").map(HeaderValue::to_str).transpose();
        // One that was not honoured would have each repetition deliver everything again.
        let key = key.map_err(|_| Problem::bad_request("Idempotency-Key: visible ASCII only"))?;
        Ok(Self { key: key.map(str::to_owned) })
    }
}

/// With a key: whoever sends it. Without one: only on a loopback address, and no page of a foreign
/// origin, which a browser on the same machine could be made to open.
fn authorise(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let settings = &app.settings;
    if !settings.publish.enabled {
        return Err(Problem::new(StatusCode::FORBIDDEN, "publishing is switched off"));
    }
    let key = settings.publish.api_key.as_bytes();
    if key.is_empty() {
        if !app.on_loopback {
            let detail = "publishing needs publish.api_key to be set, except on a loopback address";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let forwarded = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
        if forwarded.iter().any(|name| headers.contains_key(*name)) {
            let detail = "through a proxy publishing needs publish.api_key to be set";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let allowed =
            |origin: &str| settings.server.cors_origins.iter().any(|known| known == origin);
        if origin.is_some_and(|origin| !allowed(origin)) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this origin may not publish"));
        }
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let given = bearer.or_else(|| text("x-api-key")).unwrap_or_default();
    if bool::from(given.as_bytes().ct_eq(key)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "publishing needs the API key"))
}
