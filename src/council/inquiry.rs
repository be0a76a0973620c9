//! How a question is understood: what a stream's URL asks, or a caller in its own words, becomes what
//! each member is asked, within the limits of the settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::Council;
use super::question::{Asked, Question, Refusal, fill};
use super::seat::Seat;
use crate::settings::{CouncilSettings, StreamCouncil, Unwatched};

/// `POST …/council`: a question in a caller's own words. What is not said is as in the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inquiry {
    /// What is asked.
    pub prompt: String,
    /// What is said before it.
    #[serde(default)]
    pub system: String,
    /// Whether scores are asked for.
    #[serde(default = "yes")]
    pub scored: bool,
    /// Whom; everybody if nobody is named.
    #[serde(default)]
    pub members: Vec<String>,
    /// The weights of their scores.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
    /// How many scores an aggregate needs.
    pub quorum: Option<usize>,
    /// How long it may take.
    #[serde(default, with = "humantime_serde")]
    pub deadline: Option<Duration>,
    /// `cancel`, `continue`, `grace`, or a time of grace such as `30s`.
    pub unwatched: Option<String>,
    /// What it may cost.
    pub budget: Option<f64>,
    /// Whether members rank each other's answers and the chairman writes a synthesis.
    pub deliberate: Option<bool>,
    /// The name of the run.
    pub run_id: Option<String>,
}

impl Council {
    /// The question that a stream asks with the parameters of its URL.
    ///
    /// # Errors
    /// When nobody can answer, or the question is too long.
    pub fn question<'a>(
        &self,
        stream: &StreamCouncil,
        parameter: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Question, Refusal> {
        let settings = self.settings();
        let prompt = settings.prompt.get(&stream.prompt);
        let prompt =
            prompt.ok_or_else(|| Refusal::Invalid("there is no such prompt".to_owned()))?;
        let most = if stream.seats == 0 { usize::MAX } else { stream.seats };
        let filled = |text: &str| -> Arc<str> { fill(text, &parameter).into() };
        // Made once for all who have none of their own: it may be long.
        let (system, user) = (filled(&prompt.system), filled(&prompt.user));
        let own = |text: &Option<String>, common: &Arc<str>| {
            text.as_ref().map_or_else(|| Arc::clone(common), |text| filled(text))
        };
        let asked = self.sitting().take(most).map(|seat| Asked {
            seat: Arc::clone(seat),
            weight: seat.settings.weight,
            system: own(&seat.settings.system, &system),
            user: own(&seat.settings.user, &user),
        });
        let asked = asked.collect();
        let chairman = self.seat(&settings.chairman).or_else(|| self.sitting().next());
        let question = Question {
            quorum: settings.quorum,
            deadline: settings.deadline,
            unwatched: settings.unwatched,
            grace: settings.grace,
            budget: settings.budget,
            scored: prompt.scored,
            deliberate: settings.deliberate && prompt.scored,
            chairman: chairman.cloned(),
            asked,
        };
        self.checked(question)
    }

    /// The question that a caller puts in its own words.
    ///
    /// # Errors
    /// When nobody can answer, the question is too long, or something in it makes no sense.
    pub fn inquiry(&self, inquiry: &Inquiry) -> Result<Question, Refusal> {
        let settings = self.settings();
        let invalid = |message: String| Refusal::Invalid(message);
        let named = inquiry.members.iter().map(|name| {
            self.seat(name).ok_or_else(|| invalid(format!("members: {name:?} is not known")))
        });
        let named: Vec<_> = named.collect::<Result<_, _>>()?;
        if let Some(name) = twice(&inquiry.members) {
            return Err(invalid(format!("members: {name:?} is named twice")));
        }
        let seats = if named.is_empty() { self.sitting().collect() } else { named };
        for (name, weight) in &inquiry.weights {
            if !seats.iter().any(|seat| seat.name == *name) {
                return Err(invalid(format!("weights: {name:?} is not asked")));
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                return Err(invalid(format!(
                    "weights: that of {name:?} must be a number, 0 or more"
                )));
            }
        }
        if inquiry.prompt.trim().is_empty() {
            return Err(invalid("prompt: it is empty".to_owned()));
        }
        if inquiry.budget.is_some_and(|budget| !(budget.is_finite() && budget >= 0.0)) {
            return Err(invalid("budget: it must be a number, 0 or more".to_owned()));
        }
        let (unwatched, grace) = unwatched(inquiry.unwatched.as_deref(), settings)?;
        let (system, user) = (Arc::from(&*inquiry.system), Arc::from(&*inquiry.prompt));
        let weight = |seat: &Seat| inquiry.weights.get(&seat.name).copied();
        let asked = seats.iter().map(|seat| Asked {
            seat: Arc::clone(seat),
            weight: weight(seat).unwrap_or(seat.settings.weight),
            system: Arc::clone(&system),
            user: Arc::clone(&user),
        });
        self.checked(Question {
            asked: asked.collect(),
            quorum: inquiry.quorum.unwrap_or(settings.quorum),
            deadline: inquiry.deadline.unwrap_or(settings.deadline).min(settings.deadline),
            unwatched,
            grace,
            budget: stricter(inquiry.budget.unwrap_or_default(), settings.budget),
            scored: inquiry.scored,
            deliberate: inquiry.deliberate.unwrap_or(settings.deliberate),
            chairman: self.seat(&settings.chairman).or_else(|| seats.first().copied()).cloned(),
        })
    }

    /// What makes no sense for any question.
    fn checked(&self, mut question: Question) -> Result<Question, Refusal> {
        let members = question.asked.len();
        if members == 0 {
            let message = "The council has no members: set council.members, and declare each as \
                           [council.member.NAME]";
            return Err(Refusal::NoMembers(message.to_owned()));
        }
        let missing: Vec<_> = question
            .asked
            .iter()
            .filter_map(|asked| {
                Some(format!("{} ({})", asked.seat.missing.as_ref()?, asked.seat.name))
            })
            .collect();
        if missing.len() == members {
            let missing = missing.join(", ");
            return Err(Refusal::NoMembers(format!(
                "No member of the council can be asked: {missing}"
            )));
        }
        let most = self.settings().max_input_bytes;
        if question.asked.iter().any(|asked| asked.system.len() + asked.user.len() > most) {
            return Err(Refusal::TooLong(most));
        }
        if question.quorum == 0 {
            question.quorum = members / 2 + 1;
        }
        // With one seat of several, one score is all there can be.
        question.quorum = question.quorum.min(members);
        Ok(question)
    }
}

/// A name that is there more than once.
fn twice(names: &[String]) -> Option<&String> {
    let again = |(n, name): &(usize, &String)| names.iter().take(*n).any(|before| before == *name);
    names.iter().enumerate().find(again).map(|(_, name)| name)
}

fn stricter(one: f64, other: f64) -> f64 {
    match (one > 0.0, other > 0.0) {
        (true, true) => one.min(other),
        (true, false) => one,
        _ => other,
    }
}

fn unwatched(
    asked: Option<&str>,
    settings: &CouncilSettings,
) -> Result<(Unwatched, Duration), Refusal> {
    let grace = settings.grace;
    Ok(match asked {
        None => (settings.unwatched, grace),
        Some("cancel") => (Unwatched::Cancel, grace),
        Some("continue") => (Unwatched::Continue, grace),
        Some("grace") => (Unwatched::Grace, grace),
        Some(time) => {
            let time = humantime::parse_duration(time).map_err(|_| {
                let message = "unwatched: cancel, continue, grace, or a time such as 10s";
                Refusal::Invalid(message.to_owned())
            })?;
            (Unwatched::Grace, time.min(Duration::from_secs(3600)))
        }
    })
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;
    use crate::settings::{Dialect, MemberSettings, Settings};
    use crate::source::{Publication, PublishError, Publisher};
    use crate::{http, shutdown, telemetry};

    struct Nobody;

    #[async_trait]
    impl Publisher for Nobody {
        async fn publish(&self, _: Vec<Publication>) -> Result<usize, PublishError> {
            Ok(0)
        }
    }

    fn council() -> (Council, StreamCouncil) {
        http::choose_cryptography();
        let mut settings = Settings::load(None, []).unwrap();
        for name in ["a", "b", "own"] {
            let mut member = MemberSettings::new(Dialect::OpenaiChat, "http://[::1]:1", "m");
            member.user = (name == "own").then(|| "See {transcript}".to_owned());
            settings.council.members.push(name.to_owned());
            settings.council.member.insert(name.to_owned(), member);
        }
        let metrics = Arc::new(telemetry::Metrics::new().unwrap());
        let (stop, connections) = (shutdown::Stop::new(), watch::Sender::default().subscribe());
        let council =
            Council::new(&settings.council, Arc::new(Nobody), connections, &metrics, &stop);
        let stream = settings.stream.get("council_score").unwrap().council.clone().unwrap();
        (council.unwrap(), stream)
    }

    #[test]
    fn a_question_is_held_once_however_many_are_asked() {
        let (council, stream) = council();
        let asked = council.question(&stream, |_| Some("long")).unwrap().asked;
        let [a, b, own] = &asked[..] else { panic!("{asked:?}") };
        assert!(Arc::ptr_eq(&a.user, &b.user) && Arc::ptr_eq(&a.system, &own.system));
        assert_eq!(&*own.user, "See long");
        let inquiry: Inquiry = serde_json::from_str(r#"{"prompt": "long"}"#).unwrap();
        let asked = council.inquiry(&inquiry).unwrap().asked;
        assert!(Arc::ptr_eq(&asked[0].user, &asked[2].user));
    }
}
