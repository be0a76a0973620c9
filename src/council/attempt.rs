//! One attempt to get an answer: what of it has come, how it ends, and how long it may take.
//!
//! Nothing here waits or is shown. An answer that has not said its last word is never taken for
//! whole.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;
use super::dialect::{Fault, FaultKind, Finish, Said, Usage, tidy};
use super::end::{EndKind, Ended};
use super::seat::Seat;

/// How long to wait for what follows the last word: usage, which may never come.
const AFTERWORDS: Duration = Duration::from_secs(2);
/// Bytes of a refusal that are kept; more of it would not be shown.
const MOST_REFUSAL: usize = 4096;
/// The code of an answer without its last word.
pub(super) const NO_END: &str = "no_end";
/// The code of one that has ended without a word.
const EMPTY: &str = "empty";

/// When the patience with a member ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) began: Instant,
    /// For its first word.
    pub(super) first_text: Instant,
    /// For all of it.
    pub(super) total: Instant,
    /// How long each may take, for people.
    first_text_in: Duration,
    total_in: Duration,
    /// How long it may say nothing.
    idle: Duration,
}

/// As far as it has come.
pub(super) struct Attempt {
    pub(super) answer: Answer,
    /// Bytes of the model's words, the hidden ones included.
    pub(super) bytes: usize,
    /// Whether nothing more will come.
    pub(super) over: bool,
    /// When something came last, whatever it was.
    heard: Instant,
    refusal: String,
    finish: Option<Finish>,
}

/// What has come at once.
#[derive(Default)]
pub(super) struct News {
    /// What can be shown because of it.
    pub(super) shown: String,
    pub(super) usage: Option<Usage>,
    pub(super) citations: Option<Vec<String>>,
    /// Set when nothing more is wanted.
    pub(super) ended: Option<Result<Ended, Fault>>,
}

impl Clocks {
    pub(super) fn start(seat: &Seat) -> Self {
        let began = Instant::now();
        Self {
            began,
            first_text: began + seat.first_text,
            total: began + seat.total,
            first_text_in: seat.first_text,
            total_in: seat.total,
            idle: seat.idle,
        }
    }

    /// The first word may take as long again.
    pub(super) fn restart(&mut self) {
        self.first_text = Instant::now() + self.first_text_in;
    }
}

impl Attempt {
    /// Its answer may have so many bytes.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            answer: Answer::new(most_bytes),
            bytes: 0,
            over: false,
            heard: Instant::now(),
            refusal: String::new(),
            finish: None,
        }
    }

    /// Takes in what the provider has said.
    pub(super) fn take_in(&mut self, said: &mut Vec<Said>) -> News {
        self.heard = Instant::now();
        let mut news = News::default();
        for said in said.drain(..) {
            match said {
                Said::Text(text) => {
                    self.bytes += text.len();
                    let Ok(piece) = self.answer.push(&text) else {
                        news.ended = Some(Ok(too_long()));
                        // A shorter piece that still fits would leave a hole before it.
                        break;
                    };
                    news.shown.push_str(piece);
                }
                Said::Refusal(text) if self.refusal.len() < MOST_REFUSAL => {
                    self.refusal.push_str(&text);
                }
                Said::Refusal(_) | Said::Alive => {}
                Said::Usage(usage) => news.usage = Some(usage.over(news.usage)),
                Said::Citations(citations) => news.citations = Some(citations),
                Said::Finished(finish) => self.finish = Some(finish),
                Said::Over => self.over = true,
                // Whatever comes after the last word changes nothing.
                Said::Failed(_) if self.is_finished() => self.over = true,
                Said::Failed(fault) => news.ended = Some(Err(fault)),
            }
        }
        news
    }

    /// Whether any of it was shown.
    pub(super) fn has_spoken(&self) -> bool {
        !self.answer.shown().is_empty()
    }

    /// Whether its last word has been said.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Its stream is at its end.
    ///
    /// # Errors
    /// Without a last word: it may be worth asking again.
    pub(super) fn ended(&self) -> Result<Ended, Fault> {
        match self.finish {
            None => Err(broke_off()),
            Some(finish) if !self.refusal.is_empty() => {
                if self.bytes > 0 && finish != Finish::Refused {
                    return Ok(finish.into());
                }
                let message = format!("the model refused: {}", tidy(&self.refusal));
                Ok(Ended::new(EndKind::Refused, message))
            }
            Some(Finish::Complete) if self.bytes == 0 => {
                Ok(Ended::new(EndKind::UpstreamError, "the answer is empty").with_code(EMPTY))
            }
            Some(Finish::Truncated) if self.bytes == 0 => {
                let message = "it came to its longest without a word of an answer";
                Ok(Ended::new(EndKind::Truncated, message).with_code(EMPTY))
            }
            Some(finish) => Ok(finish.into()),
        }
    }

    /// Until when the next bytes have to come.
    pub(super) fn patience(&self, clocks: &Clocks) -> Instant {
        let patience = if self.is_finished() {
            self.heard + AFTERWORDS
        } else if self.bytes == 0 {
            clocks.first_text
        } else {
            self.heard + clocks.idle
        };
        patience.min(clocks.total)
    }

    /// How it ends when patience does.
    pub(super) fn out_of_time(&self, clocks: &Clocks) -> Ended {
        if let Ok(ended) = self.ended() {
            return ended;
        }
        let (kind, message) = if Instant::now() >= clocks.total {
            (EndKind::TimeoutTotal, format!("it took longer than {:?}", clocks.total_in))
        } else if self.bytes == 0 {
            let within = clocks.first_text_in;
            (EndKind::TimeoutFirstText, format!("its first word took longer than {within:?}"))
        } else {
            (EndKind::TimeoutIdle, format!("it fell silent for {:?}", clocks.idle))
        };
        Ended::new(kind, message)
    }
}

fn broke_off() -> Fault {
    Fault {
        kind: FaultKind::Upstream,
        code: Some(NO_END.to_owned()),
        message: "the answer broke off".to_owned(),
        retryable: true,
        retry_after: None,
    }
}

fn too_long() -> Ended {
    let message = "the answer was longer than council.max_answer_bytes";
    Ended::new(EndKind::Truncated, message).with_code("too_long")
}
