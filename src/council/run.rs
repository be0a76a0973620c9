//! One run: its members in parallel, its deadline, who watches, and the verdict.
//!
//! ```text
//! members ──ends──► board ──verdict──► voice
//! viewers, deadline, stop ──► members
//! ```
//!
//! A run is one task; dropping it closes every connection to a provider.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use prometheus::IntGauge;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::attempt::Clocks;
use super::board::{Board, Place, Status};
use super::end::{EndKind, Ended};
use super::events;
use super::member::Member;
use super::meter::Meter;
use super::question::{Asked, Question, Refusal};
use super::second_stage;
use super::stops::Stops;
use super::viewers::Viewers;
use super::voice::Voice;
use crate::event::timestamp;
use crate::settings::CouncilSettings;
use crate::shutdown::Stop;
use crate::telemetry::Metrics;

/// For so long after its end a run is told again when the source was away.
const AFTERMATH: Duration = Duration::from_secs(60);

/// What all runs share.
pub(super) struct Tools {
    pub(super) client: Client,
    pub(super) settings: Arc<CouncilSettings>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: Stop,
}

/// A run of the council.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) question: Question,
    pub(super) settings: Arc<CouncilSettings>,
    pub(super) voice: Voice,
    pub(super) board: Mutex<Board>,
    pub(super) began: Instant,
    began_at: SystemTime,
    stops: Stops,
    pub(super) viewers: Viewers,
    pub(super) ended: watch::Sender<Option<Instant>>,
    /// Whether it is this node's, as soon as that is known.
    pub(super) begun: watch::Sender<Option<Result<bool, Refusal>>>,
}

impl Run {
    pub(super) fn new(
        id: String,
        question: Question,
        settings: Arc<CouncilSettings>,
        voice: Voice,
    ) -> Self {
        Self {
            id,
            question,
            settings,
            voice,
            board: Mutex::default(),
            began: Instant::now(),
            began_at: SystemTime::now(),
            stops: Stops::default(),
            viewers: Viewers::default(),
            ended: watch::Sender::default(),
            begun: watch::Sender::default(),
        }
    }

    /// Waits until it is known whether the run is this node's; `false`: it is another one's.
    ///
    /// # Errors
    /// When it could not begin.
    pub(super) async fn begun(&self) -> Result<bool, Refusal> {
        let mut begun = self.begun.subscribe();
        let known = begun.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
        known.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Resolves when it has ended.
    pub(super) async fn is_over(&self) {
        // The sender is the run's own.
        self.ended.subscribe().wait_for(Option::is_some).await.map(drop).unwrap_or_default();
    }

    /// Nothing more comes of it, whether it has come to its end or not.
    pub(super) fn close(&self) {
        self.begun.send_if_modified(|begun| {
            let unknown = begun.is_none();
            begun.get_or_insert(Err(Refusal::Unavailable));
            unknown
        });
        self.ended.send_if_modified(|ended| {
            let is_open = ended.is_none();
            ended.get_or_insert_with(Instant::now);
            is_open
        });
        let mut board = self.board.lock();
        if board.status == Status::Running {
            board.status = Status::Failed;
        }
    }

    /// The first word: the run, who sits on it, and its rules.
    pub(super) fn first_word(&self) -> Option<crate::event::Payload> {
        let rules = json!({"quorum": self.question.quorum,
            "deadlineMs": self.question.deadline.as_millis(), "scored": self.question.scored});
        events::run(&self.id, &self.question.asked, rules)
    }

    /// Runs from the first word to the last, and for as long as the run is kept.
    pub(super) async fn proceed(self: Arc<Self>, tools: Arc<Tools>) {
        let under_way = UnderWay::new(&tools.metrics.council_runs);
        let members = &self.question.asked;
        self.board.lock().members = members.len();
        let stages = members.iter().map(|asked| (asked.seat.name.clone(), asked.clone())).collect();
        self.stage(&tools, stages, self.question.scored).await;
        let deliberates = self.question.deliberate && self.stops.reason().is_none();
        let extra = if deliberates { second_stage::hold(&self, &tools).await } else { json!({}) };
        self.conclude(&tools, extra).await;
        drop(under_way);
        self.stay(&tools).await;
    }

    /// Has places answer, all at the same time, until each has ended. Arms: an end; the deadline;
    /// nobody watches; everything has to be said again.
    pub(super) async fn stage(
        &self,
        tools: &Tools,
        asked: Vec<(String, Asked)>,
        scored: bool,
    ) -> Vec<usize> {
        let places = self.add_places(asked, scored);
        let mut answers: FuturesUnordered<_> =
            places.iter().map(|&place| self.answer(tools, place)).collect();
        let starts = {
            let board = self.board.lock();
            let seated = places.iter().filter_map(|&place| board.places.get(place));
            seated.map(|place| events::piece(place, "")).collect::<Vec<_>>()
        };
        self.voice.say(starts).await;
        let deadline = sleep_until(self.began + self.question.deadline);
        let Question { unwatched, grace, .. } = self.question;
        let abandoned = self.viewers.gone(unwatched, grace, &tools.stop);
        tokio::pin!(deadline, abandoned);
        loop {
            tokio::select! {
                ended = answers.next() => match ended {
                    Some(place) => self.tell_end(place).await,
                    None => return places,
                },
                () = &mut deadline, if !deadline.is_elapsed() => {
                    self.stop(&Ended::new(EndKind::TimeoutTotal, "the run took too long").with_code("deadline"));
                }
                () = &mut abandoned, if self.stops.reason().is_none() => {
                    self.stop(&Ended::new(EndKind::Cancelled, "nobody watched").with_code("unwatched"));
                }
                () = self.voice.lags() => self.say_again().await,
            }
        }
    }

    fn add_places(&self, asked: Vec<(String, Asked)>, scored: bool) -> Vec<usize> {
        let mut board = self.board.lock();
        let first = board.places.len();
        for (stage, asked) in asked {
            board.places.push(Place::new(stage, asked, scored));
            self.stops.add_place();
        }
        (first..board.places.len()).collect()
    }

    /// One place, to its end.
    async fn answer(&self, tools: &Tools, place: usize) -> usize {
        let seat = self.board.lock().seat(place);
        let stop = self.stops.of_place(place);
        let (Some(seat), Some(stop)) = (seat, stop) else { return place };
        let meter = Meter::new(&tools.metrics, &seat);
        let clocks = Clocks::start(&seat);
        let mut member = Member { run: self, tools, seat, place, meter, clocks, stop };
        let ended = member.answer().await;
        let mut board = self.board.lock();
        if let Some(place) = board.places.get_mut(place) {
            place.ended = Some(ended);
            member.meter.ended(place);
        }
        place
    }

    async fn tell_end(&self, place: usize) {
        let said = {
            let board = self.board.lock();
            let place = board.places.get(place);
            let end = place.and_then(|place| events::end(place, place.ended.as_ref()?));
            let has_score = place.is_some_and(|place| place.given.score.is_some());
            let verdict = has_score.then(|| board.verdict(self.question.quorum));
            [end, verdict.and_then(|verdict| events::aggregate(&verdict))]
        };
        self.voice.say(said).await;
    }

    async fn conclude(&self, tools: &Tools, extra: Value) {
        let (aggregating, complete, status) = {
            let mut board = self.board.lock();
            let answered = board.members().iter().any(Place::has_answer);
            let cancelled = self.stops.reason().map(|ended| ended.kind);
            board.status = match cancelled {
                Some(EndKind::Cancelled) => Status::Cancelled,
                _ if answered => Status::Complete,
                _ => Status::Failed,
            };
            let complete = events::complete(&events::Outcome {
                verdict: board.verdict(self.question.quorum),
                places: board.members(),
                status: board.status.as_str(),
                error: (!answered).then(|| first_error(board.members())),
                totals: board.totals(),
                extra,
            });
            board.complete.clone_from(&complete);
            let aggregating = self.question.scored.then(events::aggregating).flatten();
            (aggregating, complete, board.status)
        };
        self.voice.say([aggregating, complete]).await;
        tools.metrics.council_runs_total.with_label_values(&[status.as_str()]).inc();
        self.ended.send_replace(Some(Instant::now()));
        tracing::info!(run = %self.id, status = status.as_str(),
            seconds = self.began.elapsed().as_secs_f64(), "a run of the council is over");
    }

    /// Sees to it that the last words are heard, for a while.
    async fn stay(&self, tools: &Tools) {
        let over = sleep(AFTERMATH);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = tools.stop.requested() => return,
                () = self.voice.lags() => self.say_again().await,
            }
        }
    }

    /// Everything from the beginning: each text begins anew, with all of it.
    async fn say_again(&self) {
        let everything = {
            let board = self.board.lock();
            let mut everything = vec![self.first_word()];
            for place in &board.places {
                everything.push(events::piece(place, ""));
                if !place.text.is_empty() {
                    everything.push(events::piece(place, &place.text));
                }
                everything.push(place.ended.as_ref().and_then(|ended| events::end(place, ended)));
            }
            everything.push(events::aggregate(&board.verdict(self.question.quorum)));
            everything.push(board.complete.clone());
            everything
        };
        self.voice.say_again(everything).await;
    }

    /// Stops all that have not ended.
    pub(super) fn stop(&self, reason: &Ended) {
        self.stops.stop(reason);
    }

    /// Stops the places of one member. `false`: there is none that has not ended.
    pub(super) fn stop_member(&self, name: &str, reason: &Ended) -> bool {
        let board = self.board.lock();
        let of_member = |place: &Place| place.asked.seat.name == name && place.ended.is_none();
        let mut is_known = false;
        for (place, _) in board.places.iter().enumerate().filter(|(_, place)| of_member(place)) {
            self.stops.stop_place(place, reason);
            is_known = true;
        }
        is_known
    }

    /// How it stands.
    pub(super) fn state(&self) -> Value {
        let mut state = self.board.lock().json(self.question.quorum);
        if let Some(fields) = state.as_object_mut() {
            fields.insert("runId".to_owned(), json!(self.id));
            fields.insert("startedAt".to_owned(), json!(timestamp(self.began_at)));
            fields.insert("viewers".to_owned(), json!(self.viewers.count()));
        }
        state
    }

    /// About how many bytes it holds in memory.
    pub(super) fn weight(&self) -> usize {
        self.board.lock().weight()
    }

    /// Whether the same question may be answered by this run.
    pub(super) fn answers_again(&self, reuse: Duration) -> bool {
        match self.board.lock().status {
            Status::Running => self.stops.reason().is_none(),
            Status::Complete => self.began.elapsed() < reuse,
            Status::Failed | Status::Cancelled => false,
        }
    }
}

/// Why nobody has answered.
fn first_error(members: &[Place]) -> String {
    let ended = members.iter().filter_map(|place| place.ended.as_ref());
    let mut messages = ended.map(|ended| ended.message.clone()).filter(|text| !text.is_empty());
    messages.next().unwrap_or_else(|| "no member has answered".to_owned())
}

/// Counts a run that is under way, however it ends.
struct UnderWay(IntGauge);

impl UnderWay {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}
