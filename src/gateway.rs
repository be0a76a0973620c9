//! The composition root: every part is built here and handed only what it needs.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::council::{self, Council};
use crate::event::ChannelPattern;
use crate::http::{self, App, Proxies, Tls, TlsError};
use crate::hub::{
    ChannelRule, DROP_REASONS, GapReason, HistoryBounds, Hub, HubSettings, Inlet, InletSettings,
    Lingering, ObjectChannels, SnapshotBounds,
};
use crate::session::{CloseReason, Quota, Refused, Registry};
use crate::settings::{DeliveryClass, HistorySettings, Settings};
use crate::shutdown::Stop;
use crate::source::{
    Backoff, Embedded, Publisher, RedisPubSub, RedisSettings, RedisSettingsError, Source, supervise,
};
use crate::streams::Streams;
use crate::telemetry::Metrics;
use crate::wire::Tuning;

/// A running gateway.
pub struct Gateway {
    address: SocketAddr,
    stop: Stop,
    app: Arc<App>,
}

/// Why a gateway could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric is declared wrongly: a fault of ours.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The settings of Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] RedisSettingsError),
    /// The gateway's own certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Members of the council cannot be asked.
    #[error("council: {0}")]
    Council(#[from] reqwest::Error),
    /// The listener has no address.
    #[error("listener: {0}")]
    Listener(io::Error),
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Builds every part and serves on `listener`, with `pages` beside the gateway's own routes.
    ///
    /// # Errors
    /// When the settings name something that cannot be used. A broker that is away is no error.
    pub fn start(
        settings: Settings,
        listener: TcpListener,
        pages: Router,
    ) -> Result<Self, StartError> {
        Self::start_with(Stop::new(), settings, listener, pages)
    }

    /// The same with a stop signal of the caller's, which says where the engine runs.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_with(
        stop: Stop,
        settings: Settings,
        listener: TcpListener,
        pages: Router,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr().map_err(StartError::Listener)?;
        http::choose_cryptography();
        let tls = Tls::read(&settings.server)?;
        let settings = Arc::new(settings);
        let metrics = Arc::new(Metrics::new()?);
        metrics.watch_process()?;
        begin_at_zero(&metrics);

        let streams = Streams::compile(&settings.stream);
        let redis = redis_source(&settings, &stop)?;
        let (name, standing) = match &redis {
            Some(redis) => (RedisPubSub::NAME, redis.standing()),
            None => (Embedded::NAME, Embedded::standing()),
        };
        let rules = channel_rules(&streams);
        let hub_settings = hub_settings(&settings, Arc::clone(&rules), standing.clone());
        let (hub, demand) = Hub::start(hub_settings, settings.server.drain, &metrics, &stop);
        let inlet_settings = InletSettings {
            max_event_bytes: settings.events.max_bytes,
            objects: object_channels(&streams),
            reshaped: reshaped_channels(&streams),
            rules: Arc::clone(&rules),
        };
        let inlet = hub.inlet(name, inlet_settings, &metrics);
        let source = source(redis, &inlet, settings.publish.idempotency_window);
        let council = Council::new(
            &settings.council,
            source.publisher(),
            inlet.connections(),
            &metrics,
            &stop,
        )?;

        let app = Arc::new(App {
            hub,
            inlet: inlet.clone(),
            source: name,
            standing,
            streams,
            council,
            registry: Registry::new(settings.server.max_streams, &metrics),
            quota: Quota::new(&settings.limits, &metrics),
            proxies: Proxies::new(settings.server.proxies()),
            publisher: source.publisher(),
            states: source.stored_states(),
            metrics: Arc::clone(&metrics),
            tuning: Arc::new(Tuning {
                dead_after: settings.server.dead_after,
                stalled_after: settings.server.stalled_after,
                unsent_bytes: settings.outbox.unsent_bytes,
            }),
            tls,
            stop: stop.clone(),
            started: Instant::now(),
            on_loopback: address.ip().is_loopback(),
            settings: Arc::clone(&settings),
        });
        let backoff = Backoff::of(&settings.redis);
        let settled = stop.settled();
        stop.spawn_engine("the source", async move {
            tokio::select! {
                () = supervise(&*source, &inlet, &demand, backoff, &metrics) => {}
                () = source.maintain(&inlet) => {}
                // Until then, whoever has not been told to leave yet still gets its events.
                () = settled => {}
            }
        });
        stop.spawn(http::settle(Arc::clone(&app)));
        let routes = http::routes(&app).merge(pages);
        stop.spawn_vital("the listener", http::serve(listener, routes, Arc::clone(&app)));
        tracing::info!(%address, source = name, publishing = publishing(&app.settings), "gateway started");
        Ok(Self { address, stop, app })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way out for what is published in this process.
    pub fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::clone(&self.app.publisher)
    }

    /// The stop signal its parts share; tasks started on it end with the gateway.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Tells every client to leave, each at a moment of its own within the drain window, and waits
    /// until all have, or a little longer than the window. Returns whether all have.
    pub async fn drain(self) -> bool {
        const MARGIN: Duration = Duration::from_secs(2);
        tracing::info!(streams = self.app.registry.open(), "draining");
        self.stop.request();
        let deadline = self.app.settings.server.drain + MARGIN;
        let drained = timeout(deadline, self.stop.finished()).await.is_ok();
        if !drained {
            tracing::warn!(tasks = self.stop.running(), "drain ran out of time");
            self.stop.abort();
        }
        drained
    }
}

/// Whether one can publish over HTTP, in the words of the log.
fn publishing(settings: &Settings) -> &'static str {
    match settings {
        settings if settings.publish_open() => "open",
        settings if settings.publish.enabled => "closed: publish.api_key is not set",
        _ => "off",
    }
}

/// Counters whose labels are known stand at zero from the start, so that their first increase is
/// seen as one.
fn begin_at_zero(metrics: &Metrics) {
    metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    for reason in GapReason::ALL {
        metrics.gaps_total.with_label_values(&[reason.as_str()]).reset();
    }
    for reason in Refused::ALL {
        metrics.openings_refused_total.with_label_values(&[reason.as_str()]).reset();
    }
    for class in DeliveryClass::ALL {
        for reason in CloseReason::ALL {
            let labels = [class.as_str(), reason.as_str()];
            metrics.sessions_closed_total.with_label_values(&labels).reset();
        }
        metrics.events_conflated_total.with_label_values(&[class.as_str()]).reset();
    }
    for status in council::run_ends() {
        metrics.council_runs_total.with_label_values(&[status]).reset();
    }
    for reason in DROP_REASONS {
        metrics.events_dropped_total.with_label_values(&[reason]).reset();
    }
}

fn redis_source(settings: &Settings, stop: &Stop) -> Result<Option<RedisPubSub>, StartError> {
    if settings.redis.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(RedisPubSub::new(RedisSettings::of(settings), stop)?))
}

fn source(redis: Option<RedisPubSub>, inlet: &Inlet, window: Duration) -> Arc<dyn Source> {
    match redis {
        Some(redis) => Arc::new(redis),
        None => Arc::new(Embedded::new(inlet.clone(), window)),
    }
}

fn hub_settings(
    settings: &Settings,
    rules: Arc<[ChannelRule]>,
    standing: Vec<ChannelPattern>,
) -> HubSettings {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let snapshot = &settings.snapshot;
    HubSettings {
        shards: if settings.server.shards == 0 { cores() } else { settings.server.shards },
        backlog: settings.outbox.total_bytes,
        history: history_bounds(settings.history),
        snapshot: SnapshotBounds {
            bytes: snapshot.bytes,
            age: snapshot.age,
            pattern_bytes: snapshot.pattern_bytes,
            keys: snapshot.keys,
        },
        rules,
        linger: Lingering {
            time: settings.events.linger,
            channels: settings.events.linger_channels,
            demand: settings.events.demand_channels,
        },
        standing,
        stale_after: snapshot.reread_after,
    }
}

fn history_bounds(history: HistorySettings) -> HistoryBounds {
    let HistorySettings { events, channel_bytes, bytes, age } = history;
    HistoryBounds { events, channel_bytes, bytes, age }
}

/// What the declared streams say about their channels.
fn channel_rules(streams: &Streams) -> Arc<[ChannelRule]> {
    let rules = streams.iter().flat_map(|stream| {
        let history = stream.history.map(history_bounds);
        // All pieces of a text are told, not the last alone.
        let tells_last = stream.class != DeliveryClass::Text
            && (stream.is_of_objects || !stream.ends.is_empty());
        let shape = tells_last.then(|| Arc::clone(&stream.shape));
        stream.patterns().map(move |channels| ChannelRule {
            channels: channels.clone(),
            history,
            key: stream.key.clone(),
            text: stream.text.clone(),
            shape: shape.clone(),
        })
    });
    rules.filter(ChannelRule::says_something).collect()
}

/// Channels with a stream that tells something else than the payload.
fn reshaped_channels(streams: &Streams) -> Vec<ChannelPattern> {
    let reshaped = streams.iter().filter(|stream| stream.reshapes);
    reshaped.flat_map(|stream| stream.patterns().cloned()).collect()
}

/// Channels whose streams show objects only.
fn object_channels(streams: &Streams) -> ObjectChannels {
    let patterns = |of_objects: bool| {
        let streams = streams.iter().filter(move |stream| stream.is_of_objects == of_objects);
        streams.flat_map(|stream| stream.patterns().cloned()).collect()
    };
    ObjectChannels { objects: patterns(true), anything: patterns(false) }
}
