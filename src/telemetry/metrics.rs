//! Every metric, declared once: the doc comment is its HELP text.
//!
//! Names follow the Prometheus conventions: base units, `_total` for counters.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of the latency buckets, in seconds: 50 µs to 10 s.
const LATENCY: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];
/// Those of the times of models, in seconds, as OpenTelemetry's conventions advise.
const MODELS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
    81.92,
];
/// Those of tokens, likewise.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];

macro_rules! metrics {
    ($(#[$meta:meta])* pub struct $name:ident {
        $(#[doc = $help:literal] $field:ident: $type:ty $(, [$($label:literal),+])?;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl $name {
            /// Every metric at zero, in a registry of its own.
            ///
            /// # Errors
            /// When two metrics have the same name: a fault of this file.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(let $field = <$type as Declared>::declare(
                    &name(stringify!($field)),
                    $help.trim(),
                    &[$($($label),+)?],
                )?;
                registry.register(Box::new($field.clone()))?;)*
                Ok(Self { registry, $($field),* })
            }
        }
    };
}

metrics! {
    /// The numbers of one gateway.
    pub struct Metrics {
        /// Open sessions.
        sessions: IntGaugeVec, ["transport", "stream"];
        /// Sessions that have ended, by delivery class and by the reason they ended for.
        sessions_closed_total: IntCounterVec, ["class", "reason"];
        /// Connections that are open, whatever they carry.
        connections: IntGauge;
        /// Openings of streams that were held because the client had just closed the same stream.
        openings_held_total: IntCounter;
        /// Openings of streams that are being held.
        openings_waiting: IntGauge;
        /// Openings of streams that were refused, by reason.
        openings_refused_total: IntCounterVec, ["reason"];
        /// Events that entered, by source.
        events_received_total: IntCounterVec, ["source"];
        /// Events that were not let in, by reason.
        events_dropped_total: IntCounterVec, ["reason"];
        /// Events with a bare NaN or Infinity, which became null.
        events_repaired_total: IntCounter;
        /// Events replaced by a newer one of their channel because a client lagged or asked for a lower rate, by delivery class.
        events_conflated_total: IntCounterVec, ["class"];
        /// Events told as one with the next because a client of a text lagged; nothing of them is lost.
        events_merged_total: IntCounter;
        /// Events published through this gateway.
        events_published_total: IntCounter;
        /// Frames handed to connections, by transport.
        frames_sent_total: IntCounterVec, ["transport"];
        /// Bytes handed to connections, by transport, without the framing of HTTP.
        sent_bytes_total: IntCounterVec, ["transport"];
        /// Seconds from an event's entry to its hand-over to a connection; one observation per hand-over, of its oldest event.
        publish_to_flush_seconds: Histogram;
        /// Seconds that the hub works before it lets others go on.
        hub_step_seconds: Histogram;
        /// Seconds that a shard works before it lets others go on.
        shard_step_seconds: Histogram;
        /// Gaps announced to clients, by reason.
        gaps_total: IntCounterVec, ["reason"];
        /// Whether a source is connected (1) or not (0).
        source_up: IntGaugeVec, ["source"];
        /// Whether what is published through this gateway goes out (1) or not (0), by source.
        publishing_up: IntGaugeVec, ["source"];
        /// Whether the stored states of channels can be read (1) or not (0), by source.
        states_up: IntGaugeVec, ["source"];
        /// Channels (by name) and patterns that the broker did not allow to listen to.
        source_refusals_total: IntCounterVec, ["source", "kind"];
        /// Stored states of channels that could not be read.
        states_unreadable_total: IntCounter;
        /// How often a source was lost.
        source_reconnects_total: IntCounterVec, ["source"];
        /// Seconds the last probe took through the source and back.
        source_probe_seconds: GaugeVec, ["source"];
        /// Bytes held so that clients can resume.
        history_bytes: IntGauge;
        /// Channels that clients can resume.
        history_channels: IntGauge;
        /// Bytes held as the last events of channels.
        snapshot_bytes: IntGauge;
        /// Channels whose last event is held.
        snapshot_channels: IntGauge;
        /// Channels and patterns with at least one session.
        subscribed_topics: IntGauge;
        /// Subscriptions of sessions to channels and patterns.
        subscriptions: IntGauge;
        /// Bytes that wait for clients to read, with what the kernel holds for slow ones.
        outbox_bytes: IntGauge;
        /// Answers to requests, by status.
        http_responses_total: IntCounterVec, ["status"];
        /// Runs of the council that are under way.
        council_runs: IntGauge;
        /// Runs of the council that are over, by how they ended.
        council_runs_total: IntCounterVec, ["status"];
        /// Requests to the providers of members of the council, further attempts included.
        council_requests_total: IntCounterVec, ["member"];
        /// Answers of members of the council that have ended, by how.
        council_member_ends_total: IntCounterVec, ["member", "end"];
        /// What members of the council have cost, in the currency of their prices, guessed where a provider has not counted.
        council_cost_total: CounterVec, ["member"];
        /// Seconds from the first request to a member's provider to its first word.
        gen_ai_client_operation_time_to_first_chunk_seconds: HistogramVec, ["member", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];
        /// Seconds between two pieces of a member's text.
        gen_ai_client_operation_time_per_output_chunk_seconds: HistogramVec, ["member", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];
        /// Seconds from the first request to a member's provider to the end of its answer.
        gen_ai_client_operation_duration_seconds: HistogramVec, ["member", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"];
        /// Tokens of an answer of a member, by kind.
        gen_ai_client_token_usage: HistogramVec, ["member", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"];
        /// Always 1; the labels say what runs.
        build_info: IntGaugeVec, ["version"];
    }
}

impl Metrics {
    /// The page Prometheus reads.
    ///
    /// # Errors
    /// When a metric cannot be written as text: a fault of this file.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Adds memory, file descriptors and CPU time of the process.
    ///
    /// # Errors
    /// When they were added before.
    pub fn watch_process(&self) -> Result<(), prometheus::Error> {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        self.registry.register(Box::new(process))
    }
}

/// Ours begin with our name; those of OpenTelemetry's conventions keep theirs, in the spelling of
/// Prometheus.
fn name(field: &str) -> String {
    if field.starts_with("gen_ai_") { field.to_owned() } else { format!("sluice_{field}") }
}

/// How a kind of metric is made.
trait Declared: Sized + Collector {
    fn declare(name: &str, help: &str, labels: &[&str]) -> Result<Self, prometheus::Error>;
}

macro_rules! declared {
    ($($type:ty: |$name:ident, $help:ident, $labels:ident| $make:expr;)*) => {$(
        impl Declared for $type {
            fn declare($name: &str, $help: &str, $labels: &[&str]) -> Result<Self, prometheus::Error> {
                $make
            }
        }
    )*};
}

declared! {
    IntCounter: |name, help, _labels| Self::new(name, help);
    IntGauge: |name, help, _labels| Self::new(name, help);
    IntCounterVec: |name, help, labels| Self::new(Opts::new(name, help), labels);
    IntGaugeVec: |name, help, labels| Self::new(Opts::new(name, help), labels);
    Histogram: |name, help, _labels| Self::with_opts(HistogramOpts::new(name, help).buckets(LATENCY.to_vec()));
    GaugeVec: |name, help, labels| Self::new(Opts::new(name, help), labels);
    CounterVec: |name, help, labels| Self::new(Opts::new(name, help), labels);
    HistogramVec: |name, help, labels| {
        let buckets = if name.ends_with("_seconds") { MODELS } else { TOKENS };
        Self::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    };
}
