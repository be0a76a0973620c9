//! One member answers: attempts, clocks, and what becomes of its words.
//!
//! ```text
//! upstream ──Said──► answer ──what can be shown──► board, voice
//! ```
//!
//! Its failure is its own. What it says is shown as it comes; its end has a name.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::answer::ScoreSource;
use super::attempt::{Attempt, Clocks, NO_END};
use super::board::{Board, Place, add};
use super::dialect::{Fault, Said, Usage};
use super::end::{EndKind, Ended};
use super::events;
use super::meter::Meter;
use super::question::Asked;
use super::run::{Run, Tools};
use super::score;
use super::seat::Seat;
use super::stops::Reason;
use super::upstream::Upstream;

/// The pause before the second attempt, when the provider names none; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// About how many bytes of text are a token, for as long as the provider has not counted.
const TOKEN_BYTES: usize = 4;

/// A member while it answers.
pub(super) struct Member<'a> {
    pub(super) run: &'a Run,
    pub(super) tools: &'a Tools,
    pub(super) seat: Arc<Seat>,
    /// Its place on the board.
    pub(super) place: usize,
    pub(super) meter: Meter,
    pub(super) clocks: Clocks,
    /// Set when it has to stop, which it does between two words.
    pub(super) stop: watch::Receiver<Reason>,
}

impl Member<'_> {
    /// Asks until there is an answer or no hope for one.
    pub(super) async fn answer(&mut self) -> Ended {
        if let Some(missing) = &self.seat.missing {
            return Ended::new(EndKind::Auth, missing.clone()).with_code("not_configured");
        }
        let (mut attempts, mut restarts) = (0, 0);
        loop {
            if self.is_too_dear() {
                return too_dear();
            }
            attempts += 1;
            self.note(|place| place.attempts += 1);
            let mut attempt = Attempt::new(self.run.settings.max_answer_bytes);
            let fault = match self.attempt(&mut attempt).await {
                Ok(ended) => return self.judge(attempt, ended).await,
                Err(fault) => self.seat.without_key(fault),
            };
            if attempt.bytes == 0 {
                // What was refused is not billed.
                self.note(Place::forget_guess);
            }
            let has_spoken = attempt.has_spoken();
            let tries = if has_spoken { restarts } else { attempts };
            let Some(pause) = self.pause_after(&fault, tries, has_spoken) else {
                return self.judge(attempt, give_up(fault, has_spoken)).await;
            };
            tracing::info!(member = %self.seat.name, run = %self.run.id, error = %fault.message,
                pause_ms = pause.as_millis(), "a member is asked again");
            self.begin_anew(has_spoken).await;
            if let Ok(ended) = timeout(pause, stopped(&mut self.stop)).await {
                return ended;
            }
            if has_spoken {
                (attempts, restarts) = (0, restarts + 1);
                self.clocks.restart();
            }
        }
    }

    /// How long to wait before it is asked again, after so many tries; `None`: it is not.
    fn pause_after(&self, fault: &Fault, tries: u32, has_spoken: bool) -> Option<Duration> {
        let settings = &self.seat.settings;
        let (most, deadline) = if has_spoken {
            (settings.restarts, self.clocks.total)
        } else {
            (settings.attempts, self.clocks.first_text)
        };
        let pause = fault.retry_after.unwrap_or_else(|| pause(tries));
        (fault.retryable && tries < most && Instant::now() + pause < deadline).then_some(pause)
    }

    /// Asks once.
    ///
    /// # Errors
    /// When it may be worth asking again.
    async fn attempt(&mut self, attempt: &mut Attempt) -> Result<Ended, Fault> {
        let Some(question) = self.question() else { return attempt.ended() };
        let by_schema = self.is_scored() && self.seat.by_schema;
        let body = self.seat.bodies.asking(&question.system, &question.user, by_schema);
        self.guess_usage(question.system.len() + question.user.len(), 0);
        self.meter.asked();
        let first_text = self.clocks.first_text.min(self.clocks.total);
        let mut upstream = tokio::select! {
            biased;
            ended = stopped(&mut self.stop) => return Ok(ended),
            opened = timeout_at(first_text, Upstream::open(&self.tools.client, &self.seat, body)) => {
                let Ok(opened) = opened else { return Ok(attempt.out_of_time(&self.clocks)) };
                opened?
            }
        };
        let mut said = Vec::new();
        // Moved when patience ends sooner, or when it goes off: not for each word.
        let alarm = sleep_until(attempt.patience(&self.clocks));
        tokio::pin!(alarm);
        loop {
            let more = tokio::select! {
                biased;
                ended = stopped(&mut self.stop) => return Ok(ended),
                more = upstream.next(&mut said) => match more {
                    Err(_) if attempt.is_finished() => false,
                    more => more?,
                },
                () = &mut alarm => {
                    let patience = attempt.patience(&self.clocks);
                    if patience <= Instant::now() {
                        return Ok(attempt.out_of_time(&self.clocks));
                    }
                    alarm.as_mut().reset(patience);
                    continue;
                }
            };
            if let Some(ended) = self.take_in(attempt, &mut said).await {
                return ended;
            }
            if attempt.over {
                // A connection whose answer has been read to its end can be used again.
                drop(upstream.next(&mut said).now_or_never());
            }
            if !more || attempt.over {
                return attempt.ended();
            }
            let patience = attempt.patience(&self.clocks);
            if patience < alarm.deadline() {
                alarm.as_mut().reset(patience);
            }
        }
    }

    /// What the provider has said since. `Some`: the answer is at its end.
    async fn take_in(
        &mut self,
        attempt: &mut Attempt,
        said: &mut Vec<Said>,
    ) -> Option<Result<Ended, Fault>> {
        let news = attempt.take_in(said);
        self.note(|place| place.note(news.usage, news.citations));
        self.show(&news.shown).await;
        self.guess_usage(0, attempt.bytes);
        // What is whole has been paid: nothing is saved by leaving it out.
        let is_stopped = || !attempt.is_finished() && self.is_too_dear();
        news.ended.or_else(|| is_stopped().then(|| Ok(too_dear())))
    }

    async fn show(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let since = self.clocks.began.elapsed();
        let shown = self.on_board(|place| {
            place.text.push_str(text);
            let is_first = place.first_text.replace(place.first_text.unwrap_or(since)).is_none();
            (is_first, events::piece(place, text))
        });
        let Some((is_first, piece)) = shown else { return };
        self.meter.text(is_first.then_some(since));
        self.run.voice.say([piece]).await;
    }

    /// Shows what was held back, and reads the scores of what counts as an answer. In the last line
    /// of a text that was cut, a number may be cut, too; an object is whole or has none.
    async fn judge(&mut self, mut attempt: Attempt, ended: Ended) -> Ended {
        let rest = attempt.answer.rest().to_owned();
        self.show(&rest).await;
        let given = attempt.answer.finish(self.run.settings.scale).given;
        let is_whole = ended.kind == EndKind::Ok || given.source == ScoreSource::JsonSchema;
        if self.is_scored() && ended.has_answer() && is_whole {
            self.note(|place| place.given = given);
        }
        ended
    }

    /// What was said is withdrawn, what it used is kept.
    async fn begin_anew(&self, has_spoken: bool) {
        let anew = self.on_board(|place| {
            place.text.clear();
            place.used_before = add(place.used_before, place.usage);
            place.usage = Usage::default();
            place.is_guess = true;
            place.citations.clear();
            events::piece(place, "")
        });
        if has_spoken {
            self.run.voice.say([anew.flatten()]).await;
        }
    }

    /// What it is asked. Without a schema, a score is demanded in words.
    fn question(&self) -> Option<Asked> {
        let (mut asked, scored) = self.on_board(|place| (place.asked.clone(), place.scored))?;
        if scored && !self.seat.by_schema {
            let demand = score::demand(self.run.settings.scale);
            asked.user = [&*asked.user, "\n\n", &demand].concat().into();
        }
        Some(asked)
    }

    fn is_scored(&self) -> bool {
        self.on_board(|place| place.scored).unwrap_or_default()
    }

    /// For as long as its provider does not count, its tokens are guessed.
    fn guess_usage(&self, asked_bytes: usize, answered_bytes: usize) {
        let tokens = |bytes: usize| (bytes / TOKEN_BYTES) as u64;
        self.note(|place| {
            if !place.is_guess {
                return;
            }
            if asked_bytes > 0 {
                place.usage.input = Some(tokens(asked_bytes));
            }
            place.usage.output = Some(tokens(answered_bytes));
        });
    }

    fn is_too_dear(&self) -> bool {
        let own = self.seat.settings.budget;
        let all = self.run.question.budget;
        let board = self.run.board.lock();
        let cost = board.places.get(self.place).and_then(Place::cost).unwrap_or_default();
        own > 0.0 && cost > own || all > 0.0 && board.spent() > all
    }

    fn note(&self, what: impl FnOnce(&mut Place)) {
        self.on_board(what);
    }

    fn on_board<T>(&self, look: impl FnOnce(&mut Place) -> T) -> Option<T> {
        let mut board = self.run.board.lock();
        let Board { places, .. } = &mut *board;
        places.get_mut(self.place).map(look)
    }
}

fn too_dear() -> Ended {
    Ended::new(EndKind::Budget, "its budget is spent").with_code("budget")
}

/// The end of an answer that is not asked for again.
fn give_up(fault: Fault, has_spoken: bool) -> Ended {
    let ended = Ended::from(fault);
    let broke_off = has_spoken && ended.code.as_deref() == Some(NO_END);
    let kind = if broke_off { EndKind::Truncated } else { ended.kind };
    Ended { kind, ..ended }
}

/// Resolves when it has to stop, with the reason.
async fn stopped(stop: &mut watch::Receiver<Reason>) -> Ended {
    let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(ended) => ended,
        // Nobody is left who could stop it.
        None => std::future::pending().await,
    }
}

/// Doubled each time, and 75 to 100 % of it, so that many members do not come back at once.
fn pause(attempts: u32) -> Duration {
    let grown = PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    grown.min(Duration::from_secs(20)).mul_f64(fastrand::f64().mul_add(0.25, 0.75))
}
