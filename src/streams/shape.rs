//! What becomes of a payload on a declared stream (contract: "What workers publish").

mod chunk;
mod envelope;
mod job;
mod render;
mod verdicts;

use std::sync::Arc;

use serde_json::value::RawValue;

use super::end::EndRule;
use crate::event::{
    self, Channel, ChannelPattern, Epoch, Event, Fields, Made, Payload, Rules, Shape, ShapeId,
    Shaped, Verdict,
};
use crate::settings::{ShapeName, StreamSettings};

use verdicts::Verdicts;

/// The field in which workers say when they have made a report.
const TIMESTAMP: &str = "timestamp";

/// The shape of one declared stream: what an event becomes, what it is called, and whether it ends
/// the stream.
#[derive(Debug)]
pub(super) struct DeclaredShape {
    id: ShapeId,
    name: ShapeName,
    event_type: Option<String>,
    key: Option<String>,
    text: Option<String>,
    notices: Vec<String>,
    /// Channels that are not shown.
    deny: Vec<ChannelPattern>,
    ends: Vec<EndRule>,
    /// The fields that the end can hang on, by themselves or by what the shape makes of them.
    decisive: Vec<String>,
    verdicts: Verdicts,
}

impl DeclaredShape {
    pub(super) fn new(id: u16, name: ShapeName, settings: &StreamSettings) -> Self {
        let ends: Vec<_> = settings.end.iter().map(EndRule::new).collect();
        let made_of = match name {
            ShapeName::JobProgress => job::MADE_OF,
            ShapeName::RenderProgress => render::MADE_OF,
            ShapeName::Payload | ShapeName::Envelope | ShapeName::Chunk => &["type"],
        };
        let decisive = ends.iter().flat_map(EndRule::names).map(String::as_str);
        let decisive = decisive.chain(made_of.iter().copied()).map(str::to_owned).collect();
        Self {
            id: ShapeId(id),
            name,
            event_type: settings.event_type.clone(),
            key: settings.key.clone(),
            text: settings.text.clone(),
            notices: settings.notices.clone(),
            deny: settings.deny.iter().filter_map(|text| ChannelPattern::new(text).ok()).collect(),
            ends,
            decisive,
            verdicts: Verdicts::default(),
        }
    }
}

impl Shape for DeclaredShape {
    fn id(&self) -> ShapeId {
        self.id
    }

    fn apply(&self, event: &Event) -> Option<Shaped> {
        if !self.shows(&event.channel) {
            return None;
        }
        let mut run = None;
        let json: Arc<str> = match self.name {
            ShapeName::Payload => with_type(event, self.event_type.as_deref()),
            ShapeName::Envelope => envelope::json(event).into(),
            ShapeName::JobProgress => job::json(event)?.into(),
            ShapeName::Chunk => {
                chunk::json(event, self.text.as_deref()?).unwrap_or_default().into()
            }
            ShapeName::RenderProgress => {
                let (json, present) = render::json(event, self)?;
                run = Some(present);
                json.into()
            }
        };
        let mut shaped = Shaped { run, ..Shaped::plain(json) };
        self.read(event, &mut shaped);
        // What shows nothing may still end the stream.
        (!shaped.json.is_empty() || shaped.end.is_some()).then_some(shaped)
    }

    fn shows(&self, channel: &Channel) -> bool {
        !self.deny.iter().any(|pattern| pattern.matches(channel))
    }

    fn verdict(&self, channel: &Channel, payload: &Payload) -> Verdict {
        let is_shown = self.shows(channel) && (!self.name.is_of_objects() || payload.is_object());
        let plain = Verdict { is_shown, ..Verdict::default() };
        if !is_shown || !self.ends.iter().any(|rule| rule.is_for(channel)) {
            return plain;
        }
        // What the shape says of an event with these fields alone, it says of the whole.
        let all = self.decisive.iter().map(String::as_str).chain([TIMESTAMP]);
        let fields = Fields::of_names(payload.as_str(), &all.collect::<Vec<_>>());
        let Some(mut fields) = fields else { return plain };
        let made = Made::read(fields.get(TIMESTAMP));
        if !self.decisive.iter().any(|name| name == TIMESTAMP) {
            fields.remove(TIMESTAMP);
        }
        let Some(decisive) = Payload::of(&fields) else { return plain };
        let rules = self.ends.iter().enumerate().filter(|(_, rule)| rule.is_for(channel));
        let rules: Rules = rules.map(|(number, _)| number).collect();
        let verdict = self.verdicts.get(((rules, job::is_of_tasks(channel)), &decisive), || {
            let event = Event::new(channel.clone(), decisive.clone(), Epoch::random().at(0));
            let Some(shaped) = event.shaped(self) else {
                return Verdict { is_shown: false, ..plain };
            };
            let own = self.ends.iter().filter(|rule| rule.is_for(channel));
            Verdict {
                is_report: own.flat_map(EndRule::names).any(|name| fields.get(name).is_some()),
                end: shaped.end.as_ref().map(|end| (end.rule, end.latch)),
                contradicts: shaped.contradicts,
                ..plain
            }
        });
        Verdict { made, ..verdict }
    }

    fn merge<'a>(&self, events: &'a [Arc<Event>]) -> Option<(Event, &'a [Arc<Event>])> {
        let goes_on = |event: &Event| event.shaped(self).is_some_and(|s| s.end.is_none());
        event::merge(events, self.text.as_deref()?, goes_on)
    }
}

impl DeclaredShape {
    /// Finds the type, the key and the end. Those of an envelope and of a chunk are what is inside.
    fn read(&self, event: &Event, shaped: &mut Shaped) {
        let json = Arc::clone(&shaped.json);
        let wrapped = matches!(self.name, ShapeName::Envelope | ShapeName::Chunk);
        let text = if wrapped { event.payload.as_str() } else { &json };
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(text) else { return };
        let kind = fields.get("type").and_then(string);
        let kind = if wrapped { self.event_type.clone().or(kind) } else { kind };
        shaped.is_notice = kind.as_ref().is_some_and(|kind| self.notices.contains(kind));
        shaped.kind = kind.map(Into::into);
        shaped.key = self.key.as_ref().and_then(|key| fields.get(key)).map(|key| key.get().into());
        let rules = || {
            let rules = self.ends.iter().enumerate();
            rules.filter(|(_, rule)| rule.is_for(&event.channel))
        };
        shaped.end = rules().find_map(|(number, rule)| rule.apply(number, &fields));
        if self.ends.is_empty() || shaped.end.is_some() {
            return;
        }
        let said = event.payload.fields().unwrap_or_default();
        let contradicted = rules().filter(|(_, rule)| rule.is_contradicted(&said, &fields));
        shaped.contradicts = contradicted.map(|(number, _)| number).collect();
    }
}

/// The payload, with its type in front if it is an object that does not say it.
fn with_type(event: &Event, event_type: Option<&str>) -> Arc<str> {
    let payload = event.payload.shared();
    let Some(event_type) = event_type else { return payload };
    let Some(fields) = event.payload.fields().filter(|fields| fields.get("type").is_none()) else {
        return payload;
    };
    let rest = payload.strip_prefix('{').unwrap_or_default().trim_start();
    let comma = if fields.is_empty() { "" } else { "," };
    format!("{{\"type\":{}{comma}{rest}", serde_json::json!(event_type)).into()
}

/// The value as a string, if it is one.
fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The value as a number, if it is one.
fn number(value: &RawValue) -> Option<f64> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests;
