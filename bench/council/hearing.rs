//! What a stream says, and whether it says all of it: lines of Server-Sent Events with the texts of
//! one member or of a whole council.
//!
//! A text is the time at which it was sent, in nanoseconds, and a space. Several may come as one,
//! and one may come in parts: it counts when its space has come.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::tally::Tally;

/// In which form texts come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speech {
    /// Chunks of a chat completion.
    Completion,
    /// Events of a council.
    Council,
}

/// One stream that is listened to.
#[derive(Debug)]
pub(crate) struct Hearing {
    speech: Speech,
    asked: u64,
    members: BTreeMap<String, Member>,
    ended: bool,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Member {
    /// The beginning of a text whose end has not come.
    begun: String,
    texts: usize,
    /// When the newest text was sent, and how long it took.
    newest: Option<(u64, u64)>,
    finished: bool,
}

impl Hearing {
    /// Of a stream that was asked for at this time.
    pub(crate) fn new(speech: Speech, asked: u64) -> Self {
        Self { speech, asked, members: BTreeMap::new(), ended: false, tally: Tally::default() }
    }

    /// Whether the stream has said that nothing comes after.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes a line that arrived at this time.
    pub(crate) fn line(&mut self, line: &[u8], at: u64) -> anyhow::Result<()> {
        if let (Speech::Council, Some(name)) = (self.speech, field(line, b"event:")) {
            self.ended |= name == b"complete";
        }
        let Some(data) = field(line, b"data:") else { return Ok(()) };
        match self.speech {
            Speech::Completion => self.completion(data, at),
            Speech::Council => self.council(data, at),
        }
    }

    fn completion(&mut self, data: &[u8], at: u64) -> anyhow::Result<()> {
        if data == b"[DONE]" {
            self.ended = true;
            return Ok(());
        }
        let Completion { choices } = serde_json::from_slice(data)?;
        for Choice { delta, finish_reason } in choices {
            self.say("m", delta.content.as_deref().unwrap_or_default(), at)?;
            if finish_reason.is_some() {
                self.finish("m");
            }
        }
        Ok(())
    }

    fn council(&mut self, data: &[u8], at: u64) -> anyhow::Result<()> {
        let Progress { stage, thinking, is_complete } = serde_json::from_slice(data)?;
        let thinking = thinking.unwrap_or_default();
        match stage.as_deref() {
            None | Some("run" | "aggregate" | "aggregating" | "complete") => Ok(()),
            Some(stage) if is_complete && thinking.is_empty() => {
                self.finish(stage);
                Ok(())
            }
            Some(stage) if is_complete => bail!("{stage} failed: {thinking}"),
            Some(stage) => self.say(stage, &thinking, at),
        }
    }

    fn say(&mut self, name: &str, said: &str, at: u64) -> anyhow::Result<()> {
        let member = self.member(name);
        member.begun.push_str(said);
        let Some(end) = member.begun.rfind(' ') else { return Ok(()) };
        let whole: String = member.begun.drain(..=end).collect();
        for (nth, text) in whole.split_ascii_whitespace().enumerate() {
            let sent = text.parse().with_context(|| format!("{name} said {text}"))?;
            self.tally.merged += usize::from(nth > 0);
            self.hear(name, sent, at);
        }
        Ok(())
    }

    /// One text.
    fn hear(&mut self, name: &str, sent: u64, at: u64) {
        let transit = at.saturating_sub(sent);
        let asked = self.asked;
        let member = self.member(name);
        member.texts += 1;
        let before = member.newest.replace((sent, transit));
        let tally = &mut self.tally;
        tally.transit.push(transit);
        match before {
            None => {
                tally.first_text.push(at.saturating_sub(asked));
                tally.first_transit.push(transit);
            }
            Some((newest, its_transit)) => {
                tally.gap.push(transit.abs_diff(its_transit));
                if sent <= newest {
                    tally.faults.push(format!("{name}: out of order or twice"));
                }
            }
        }
    }

    fn finish(&mut self, name: &str) {
        self.member(name).finished = true;
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.entry(name.to_owned()).or_default()
    }

    /// What was measured and what is wrong with it, if so many members each had so many texts.
    pub(crate) fn verdict(mut self, members: usize, texts: usize) -> Tally {
        let mut fault = |fault: String| self.tally.faults.push(fault);
        if self.members.len() != members {
            fault(format!("{} of {members} members", self.members.len()));
        }
        for (name, member) in &self.members {
            if member.texts != texts || !member.begun.is_empty() {
                fault(format!("{name}: {} of {texts} texts", member.texts));
            }
            if !member.finished {
                fault(format!("{name} did not finish"));
            }
        }
        if !self.ended {
            fault("the stream did not end".to_owned());
        }
        self.tally
    }
}

/// The value of a line that begins with this name and colon.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    Some(line.strip_prefix(name)?.trim_ascii_start())
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Progress {
    stage: Option<String>,
    thinking: Option<String>,
    is_complete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A council of one, whose texts these are.
    fn council(texts: &[&str]) -> Hearing {
        let mut hearing = Hearing::new(Speech::Council, 5);
        let progress =
            |text| format!(r#"data: {{"stage":"m1","thinking":"{text}","isComplete":false}}"#);
        for (text, at) in texts.iter().zip(100..) {
            hearing.line(progress(text).as_bytes(), at).unwrap();
        }
        hearing
    }

    fn end(mut hearing: Hearing) -> Hearing {
        for line in [
            r#"data: {"stage":"m1","score":0.5,"isComplete":true}"#,
            r#"data: {"stage":"aggregating","thinking":"Aggregating","isComplete":false}"#,
            r#"data: {"stage":"complete","isComplete":true}"#,
            "event: complete",
        ] {
            assert!(!hearing.ended());
            hearing.line(line.as_bytes(), 200).unwrap();
        }
        hearing
    }

    #[test]
    fn texts_that_come_as_one_or_in_parts_are_measured_one_by_one() {
        let tally = end(council(&["", "10 20 ", "3", "0 "])).verdict(1, 3);
        assert_eq!(tally.faults, [""; 0]);
        assert_eq!(tally.transit, [91, 81, 73]);
        assert_eq!(tally.gap, [10, 8]);
        assert_eq!((tally.first_text, tally.first_transit), (vec![96], vec![91]));
        assert_eq!(tally.merged, 1);
    }

    #[test]
    fn what_is_lost_or_twice_or_in_another_order_or_without_an_end_is_a_fault() {
        let faults = |hearing: Hearing, members, texts| hearing.verdict(members, texts).faults;
        assert_eq!(faults(end(council(&["10 ", "20 "])), 1, 3), ["m1: 2 of 3 texts"]);
        assert_eq!(faults(end(council(&["10 ", "20"])), 1, 1), ["m1: 1 of 1 texts"]);
        assert_eq!(faults(end(council(&["10 10 "])), 1, 2), ["m1: out of order or twice"]);
        assert_eq!(faults(end(council(&["20 10 "])), 1, 2), ["m1: out of order or twice"]);
        assert_eq!(faults(end(council(&["10 "])), 2, 1), ["1 of 2 members"]);
        let endless = ["m1 did not finish", "the stream did not end"];
        assert_eq!(faults(council(&["10 "]), 1, 1), endless);
    }

    #[test]
    fn a_member_that_fails_or_says_anything_else_is_a_failure() {
        let failed = br#"data: {"stage":"m1","thinking":"Error: x","isComplete":true}"#;
        let other = br#"data: {"stage":"m1","thinking":"hello ","isComplete":false}"#;
        for line in [&failed[..], other] {
            assert!(Hearing::new(Speech::Council, 0).line(line, 1).is_err());
        }
    }

    #[test]
    fn a_completion_is_measured_to_its_end() {
        let mut hearing = Hearing::new(Speech::Completion, 5);
        for line in [
            r#"data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"data: {"choices":[{"delta":{"content":"10 "},"finish_reason":null}]}"#,
            r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"data: {"choices":[],"usage":{"total_tokens":1}}"#,
            "data: [DONE]",
        ] {
            hearing.line(line.as_bytes(), 100).unwrap();
        }
        let tally = hearing.verdict(1, 1);
        assert_eq!((tally.faults, tally.transit), (vec![], vec![90]));
    }
}
