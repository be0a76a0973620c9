//! What is counted of one member's answers, under the names of OpenTelemetry's conventions for
//! generative AI, in their Prometheus spelling, and under ours where they have none.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Histogram;
use tokio::time::Instant;

use super::board::{Place, add};
use super::seat::Seat;
use crate::settings::Dialect;
use crate::telemetry::Metrics;

/// The counts of one member in one stage.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    seat: Arc<Seat>,
    first_text: Histogram,
    gap: Histogram,
    asked: Option<Instant>,
    last_text: Option<Instant>,
}

impl Meter {
    pub(super) fn new(metrics: &Arc<Metrics>, seat: &Arc<Seat>) -> Self {
        let (metrics, seat) = (Arc::clone(metrics), Arc::clone(seat));
        let first_text = &metrics.gen_ai_client_operation_time_to_first_chunk_seconds;
        let first_text = first_text.with_label_values(&labels(&seat));
        let gap = &metrics.gen_ai_client_operation_time_per_output_chunk_seconds;
        let gap = gap.with_label_values(&labels(&seat));
        Self { metrics, seat, first_text, gap, asked: None, last_text: None }
    }

    /// A request goes out.
    pub(super) fn asked(&mut self) {
        let now = Instant::now();
        self.asked.get_or_insert(now);
        self.last_text = None;
        self.metrics.council_requests_total.with_label_values(&[&*self.seat.name]).inc();
    }

    /// Text has come; `first`: after so long, and for the first time.
    pub(super) fn text(&mut self, first: Option<Duration>) {
        let now = Instant::now();
        if let Some(first) = first {
            self.first_text.observe(first.as_secs_f64());
        }
        if let Some(last) = self.last_text.replace(now) {
            self.gap.observe((now - last).as_secs_f64());
        }
    }

    /// The answer has ended.
    pub(super) fn ended(&self, place: &Place) {
        let Some(ended) = &place.ended else { return };
        let kind = ended.kind.as_str();
        let name = &*self.seat.name;
        self.metrics.council_member_ends_total.with_label_values(&[name, kind]).inc();
        let [member, operation, provider, model] = labels(&self.seat);
        if let Some(asked) = self.asked {
            let error = if ended.has_answer() { "" } else { kind };
            let metric = &self.metrics.gen_ai_client_operation_duration_seconds;
            let labels = [member, operation, provider, model, error];
            metric.with_label_values(&labels).observe(asked.elapsed().as_secs_f64());
        }
        let used = add(place.used_before, place.usage);
        let by_kind = [("input", used.input), ("output", used.output)];
        for (kind, tokens) in by_kind.into_iter().filter_map(|(kind, n)| Some((kind, n?))) {
            #[expect(clippy::cast_precision_loss, reason = "a histogram of tokens")]
            let tokens = tokens as f64;
            let labels = [member, operation, provider, model, kind];
            self.metrics.gen_ai_client_token_usage.with_label_values(&labels).observe(tokens);
        }
        if let Some(cost) = place.cost() {
            self.metrics.council_cost_total.with_label_values(&[name]).inc_by(cost);
        }
    }
}

/// Member, operation, provider and model.
fn labels(seat: &Seat) -> [&str; 4] {
    let provider = match seat.dialect {
        Dialect::OpenaiChat | Dialect::OpenaiResponses => "openai",
        Dialect::Anthropic => "anthropic",
        Dialect::Gemini => "gcp.gemini",
    };
    [&seat.name, "chat", provider, &seat.settings.model]
}
