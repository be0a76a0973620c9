//! What makes no sense about the council.

use super::{check_file, check_time};
use crate::event::Channel;
use crate::settings::{CouncilSettings, Fault, MemberSettings, Settings};

/// Runs and members that can be held at a time.
const MOST: usize = 100_000;

impl CouncilSettings {
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        let council = |key: &str| format!("council.{key}");
        for name in &self.members {
            if !self.member.contains_key(name) {
                let message =
                    format!("{name:?} is not declared: there is no [council.member.{name}]");
                faults.push(Fault::new("council.members", message));
            }
        }
        let mut seen = self.members.clone();
        seen.sort();
        seen.dedup();
        if seen.len() != self.members.len() {
            faults.push(Fault::new("council.members", "a member is named twice"));
        }
        if self.quorum > self.members.len().max(1) && !self.members.is_empty() {
            faults.push(Fault::new("council.quorum", "there are not so many members"));
        }
        if !self.chairman.is_empty() && !self.member.contains_key(&self.chairman) {
            faults.push(Fault::new("council.chairman", "no member has this name"));
        }
        if !(self.budget.is_finite() && self.budget >= 0.0) {
            faults.push(Fault::new("council.budget", "must be a number, 0 or more"));
        }
        for (key, time) in [
            ("first_text", self.first_text),
            ("idle", self.idle),
            ("total", self.total),
            ("deadline", self.deadline),
            ("connect", self.connect),
        ] {
            if time.is_zero() {
                faults.push(Fault::new(council(key), "must be above 0s"));
            }
            check_time(&council(key), time, faults);
        }
        for (key, time) in
            [("grace", self.grace), ("reuse", self.reuse), ("retention", self.retention)]
        {
            check_time(&council(key), time, faults);
        }
        for (key, count) in [
            ("max_runs", self.max_runs),
            ("max_runs_per_client", self.max_runs_per_client),
            ("kept_runs", self.kept_runs),
            ("kept_bytes", self.kept_bytes),
            ("max_input_bytes", self.max_input_bytes),
            ("max_answer_bytes", self.max_answer_bytes),
        ] {
            if count == 0 {
                faults.push(Fault::new(council(key), "must be at least 1"));
            }
        }
        for (key, count) in [("max_runs", self.max_runs), ("kept_runs", self.kept_runs)] {
            if count > MOST {
                faults.push(Fault::new(council(key), format!("must be at most {MOST}")));
            }
        }
        for (name, member) in &self.member {
            member.check(name, faults);
        }
    }
}

impl MemberSettings {
    fn check(&self, name: &str, faults: &mut Vec<Fault>) {
        let at = |key: &str| format!("council.member.{name}.{key}");
        check_name(name, faults);
        self.check_provider(&at, faults);
        self.check_key_and_headers(&at, faults);
        self.check_numbers(&at, faults);
    }

    fn check_provider(&self, at: &impl Fn(&str) -> String, faults: &mut Vec<Fault>) {
        let url = reqwest::Url::parse(&self.base_url);
        if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            // It may hold a secret: it is not repeated.
            faults.push(Fault::new(at("base_url"), "not a URL such as https://api.example/v1"));
        }
        if self.model.trim().is_empty() {
            faults.push(Fault::new(at("model"), "must be named"));
        }
    }

    fn check_key_and_headers(&self, at: &impl Fn(&str) -> String, faults: &mut Vec<Fault>) {
        let of_variable = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !self.api_key_env.chars().all(of_variable) {
            // It may be the key itself: it is not repeated, here or to those who watch.
            let message = "not the name of a variable in capitals, such as OPENAI_API_KEY";
            faults.push(Fault::new(at("api_key_env"), message));
        }
        if !self.api_key_env.is_empty() && !self.api_key_file.as_os_str().is_empty() {
            faults.push(Fault::new(at("api_key_file"), "not together with api_key_env"));
        }
        check_file(&at("api_key_file"), &self.api_key_file, faults);
        let headers = self.headers.keys().map(|header| ("headers", header));
        let key_header = self.key_header.iter().map(|header| ("key_header", header));
        for (key, header) in headers.chain(key_header) {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if header.is_empty() || !header.chars().all(token) {
                faults.push(Fault::new(at(key), format!("{header:?} is no header")));
            }
        }
    }

    fn check_numbers(&self, at: &impl Fn(&str) -> String, faults: &mut Vec<Fault>) {
        if !(self.weight.is_finite() && self.weight >= 0.0) {
            faults.push(Fault::new(at("weight"), "must be a number, 0 or more"));
        }
        if !(1..=10).contains(&self.attempts) {
            faults.push(Fault::new(at("attempts"), "must be from 1 to 10"));
        }
        if self.restarts > 10 {
            faults.push(Fault::new(at("restarts"), "must be at most 10"));
        }
        let prices = [("input_price", self.input_price), ("output_price", self.output_price)];
        for (key, price) in prices.into_iter().chain([("budget", Some(self.budget))]) {
            if price.is_some_and(|price| !(price.is_finite() && price >= 0.0)) {
                faults.push(Fault::new(at(key), "must be a number, 0 or more"));
            }
        }
        let times = [("first_text", self.first_text), ("idle", self.idle), ("total", self.total)];
        for (key, time) in times.into_iter().filter_map(|(key, time)| Some((key, time?))) {
            if time.is_zero() {
                faults.push(Fault::new(at(key), "must be above 0s"));
            }
            check_time(&at(key), time, faults);
        }
    }
}

/// It is the name of a stage on the wire and stands in URLs.
fn check_name(name: &str, faults: &mut Vec<Fault>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        let message = "a member's name has 1 to 64 letters, digits, `-`, `_` or `.`";
        faults.push(Fault::new(format!("council.member.{name}"), message));
    }
    if ["run", "aggregate", "aggregating", "synthesis", "complete"].contains(&name) {
        let message = "this name is that of a stage of the council";
        faults.push(Fault::new(format!("council.member.{name}"), message));
    }
}

/// Bytes of an event for each byte of an answer, at most: as JSON writes a control character.
const ESCAPED: usize = 6;

impl Settings {
    /// All of an answer has to fit into one event.
    pub(super) fn check_answers(&self, faults: &mut Vec<Fault>) {
        let most = self.events.max_bytes / ESCAPED;
        if self.council.max_answer_bytes > most && !self.council.members.is_empty() {
            let message = format!("must be at most a sixth of events.max_bytes: {most}");
            faults.push(Fault::new("council.max_answer_bytes", message));
        }
    }

    /// What a declared stream asks of the council has to be there.
    pub(super) fn check_council_streams(&self, faults: &mut Vec<Fault>) {
        for (name, stream) in self.stream.iter().filter(|(_, stream)| stream.enabled) {
            let Some(council) = &stream.council else { continue };
            let at = format!("stream.{name}.council");
            if !self.council.prompt.contains_key(&council.prompt) {
                let message = format!("there is no [council.prompt.{}]", council.prompt);
                faults.push(Fault::new(format!("{at}.prompt"), message));
            }
            if stream.channels != [CHANNEL] {
                let message = format!("the channels of a council's stream are [\"{CHANNEL}\"]");
                faults.push(Fault::new(format!("stream.{name}.channels"), message));
            }
            let example = Channel::new(&CHANNEL.replace("{runId}", "run"));
            let heard = |pattern: &crate::event::ChannelPattern| {
                example.as_ref().is_ok_and(|channel| pattern.matches(channel))
            };
            // Without members there are no runs.
            let has_runs = !self.council.member.is_empty() && !self.redis.url.is_empty();
            if has_runs && !self.redis.standing().iter().any(heard) {
                let message = "needs \"council:*\", or a run is not heard from its beginning";
                faults.push(Fault::new("redis.patterns", message));
            }
        }
    }
}

/// The words of a run.
const CHANNEL: &str = "council:{runId}";
