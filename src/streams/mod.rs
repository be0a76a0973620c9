//! The declared streams: what a URL listens to, what becomes of its events, when it is over.
//!
//! A stream is an entry of the settings, not code. Compiled once, asked once per request.

mod end;
mod request;
mod shape;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use request::{Pairs, Params, RequestError};

use crate::event::{Channel, ChannelPattern, Filter, OWN_CHANNELS, Shape};
use crate::settings::{
    DeliveryClass, HistorySettings, PatternKind, ShapeName, StreamCouncil, StreamSettings,
};
use shape::DeclaredShape;
use template::Template;

/// All declared streams.
#[derive(Debug, Default)]
pub struct Streams(Vec<Arc<Declared>>);

/// One declared stream.
#[derive(Debug)]
pub struct Declared {
    /// Its name in metrics and logs.
    pub name: String,
    /// Its path below the prefix, with `{parameters}`.
    pub path: String,
    /// What becomes of an event.
    pub shape: Arc<dyn Shape>,
    /// The same without the envelope, for those who ask for it.
    pub bare: Arc<dyn Shape>,
    /// What happens to a client that lags.
    pub class: DeliveryClass,
    /// Whether a client that comes late gets the last events.
    pub snapshot: bool,
    /// The window whose events go out together; zero: each as it comes.
    pub batch: Duration,
    /// When it is over, for people.
    pub ends: Vec<String>,
    channels: Vec<Template>,
    patterns: Vec<ChannelPattern>,
    channels_from: Option<String>,
    /// The patterns that clients may ask for.
    asks: PatternKind,
    allow: Vec<ChannelPattern>,
    deny: Vec<ChannelPattern>,
    required: Vec<String>,
    /// The field that tells things apart that share a channel.
    pub key: Option<String>,
    /// Whether it shows objects only.
    pub is_of_objects: bool,
    /// Whether it tells something else than the payload as it is.
    pub reshapes: bool,
    /// The field that holds pieces of a text.
    pub text: Option<String>,
    /// What is kept of its channels, if not the usual.
    pub history: Option<HistorySettings>,
    /// What is asked of the council when it is opened.
    pub council: Option<StreamCouncil>,
}

impl Streams {
    /// Compiles what the settings declare. They were validated before; what cannot be compiled is
    /// left out.
    pub fn compile(settings: &BTreeMap<String, StreamSettings>) -> Self {
        let enabled = settings.iter().filter(|(_, stream)| stream.enabled);
        let declared = enabled.zip((0..).step_by(2));
        Self(
            declared
                .map(|((name, stream), id)| Arc::new(Declared::new(name, stream, id)))
                .collect(),
        )
    }

    /// Each stream.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Declared>> {
        self.0.iter()
    }

    /// The stream that answers `path` (below the prefix), and the parameters of the path.
    pub fn find(&self, path: &str) -> Option<(&Arc<Declared>, Pairs)> {
        self.0.iter().find_map(|stream| Some((stream, template::path_match(&stream.path, path)?)))
    }
}

impl Declared {
    fn new(name: &str, settings: &StreamSettings, id: u16) -> Self {
        let patterns =
            |texts: &[String]| texts.iter().filter_map(|p| ChannelPattern::new(p).ok()).collect();
        let bare =
            if settings.shape == ShapeName::Envelope { ShapeName::Payload } else { settings.shape };
        let channels: Vec<_> = settings.channels.iter().map(|text| Template::parse(text)).collect();
        Self {
            name: name.to_owned(),
            path: settings.path.clone(),
            shape: Arc::new(DeclaredShape::new(id, settings.shape, settings)),
            bare: Arc::new(DeclaredShape::new(id + 1, bare, settings)),
            class: settings.class,
            snapshot: settings.snapshot.unwrap_or(settings.class != DeliveryClass::Log),
            batch: settings.batch,
            ends: settings.end.iter().map(end::describe).collect(),
            patterns: channels.iter().filter_map(Template::pattern).collect(),
            channels,
            channels_from: settings.channels_from.clone(),
            asks: settings.patterns,
            allow: patterns(&settings.allow),
            deny: patterns(&settings.deny),
            required: settings.required.clone(),
            key: settings.key.clone(),
            is_of_objects: settings.shape.is_of_objects(),
            reshapes: settings.shape != ShapeName::Payload || settings.event_type.is_some(),
            text: settings.text.clone(),
            history: settings.history,
            council: settings.council.clone(),
        }
    }

    /// The patterns of the channels it may listen to, if they do not depend on the client alone.
    pub fn patterns(&self) -> impl Iterator<Item = &ChannelPattern> {
        self.patterns.iter()
    }

    /// Whether it listens to the channels that its settings name, not to those that clients ask for.
    pub fn declares(&self, channel: &Channel) -> bool {
        self.patterns().any(|pattern| pattern.matches(channel))
    }

    /// Whether all is there that has to be.
    ///
    /// # Errors
    /// When parameters are missing.
    pub fn check(&self, params: &Params) -> Result<(), RequestError> {
        let missing = |name: &&String| params.get(name).is_none();
        let missing: Vec<_> = self.required.iter().filter(missing).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(RequestError::Missing(missing)) }
    }

    /// Whether any of what has to be there is.
    pub fn is_asked(&self, params: &Params) -> bool {
        self.required.is_empty() || self.required.iter().any(|name| params.get(name).is_some())
    }

    /// What a request listens to. `standing`: the patterns the source listens to at all times; a
    /// client may ask for no others.
    ///
    /// # Errors
    /// When a parameter of a channel is missing, is no part of a channel's name, or asks for what is
    /// not allowed.
    pub fn filters(
        &self,
        params: &Params,
        standing: &[ChannelPattern],
    ) -> Result<Arc<[Filter]>, RequestError> {
        let mut filters = match &self.channels_from {
            Some(parameter) => self.asked_for(parameter, params, standing)?,
            None => self.declared(params)?,
        };
        filters.sort();
        filters.dedup();
        // A client that left one would have the gateway leave its own.
        if let Some(own) = filters.iter().find(|filter| filter.as_str().starts_with(OWN_CHANNELS)) {
            return Err(RequestError::NotAllowed(own.as_str().to_owned()));
        }
        Ok(filters.into())
    }

    fn declared(&self, params: &Params) -> Result<Vec<Filter>, RequestError> {
        let mut filters = Vec::new();
        for template in &self.channels {
            let Some(name) = template.fill(params)? else { continue };
            let channel =
                Channel::new(&name).map_err(|error| RequestError::channel(&name, error))?;
            filters.push(Filter::Exact(channel));
        }
        Ok(filters)
    }

    fn asked_for(
        &self,
        parameter: &str,
        params: &Params,
        standing: &[ChannelPattern],
    ) -> Result<Vec<Filter>, RequestError> {
        let mut filters = Vec::new();
        for text in params.all(parameter).filter(|text| !text.is_empty()) {
            let filter = Filter::parse(text).map_err(|error| RequestError::channel(text, error))?;
            // Of what a wider pattern matches, the shape leaves out what is denied.
            let denied = self.deny.iter().any(|pattern| pattern.covers(&filter));
            if denied || !self.allow.iter().any(|pattern| pattern.covers(&filter)) {
                return Err(RequestError::NotAllowed(text.to_owned()));
            }
            let is_any = self.asks == PatternKind::Any;
            if filter.pattern().is_some_and(|pattern| !is_any && !pattern.is_prefix()) {
                return Err(RequestError::NotPrefix(text.to_owned()));
            }
            let heard = |pattern: &ChannelPattern| pattern.covers(&filter);
            if matches!(filter, Filter::Pattern(_)) && !standing.iter().any(heard) {
                return Err(RequestError::NotHeard(text.to_owned()));
            }
            filters.push(filter);
        }
        let patterns: Vec<_> = filters.iter().filter_map(Filter::pattern).cloned().collect();
        if filters.is_empty() {
            return Err(RequestError::Missing(vec![parameter.to_owned()]));
        }
        if filters.len() > MOST_CHANNELS || patterns.len() > MOST_PATTERNS {
            return Err(RequestError::TooMany);
        }
        // What another pattern of the request covers needs no look-up of its own.
        filters.retain(|filter| {
            let others = patterns.iter().filter(|pattern| pattern.as_str() != filter.as_str());
            !others.clone().any(|pattern| pattern.covers(filter))
        });
        Ok(filters)
    }
}

/// Channels and patterns one client may ask for.
const MOST_CHANNELS: usize = 100;
/// Patterns among them: each costs a look over the channels that start like it.
const MOST_PATTERNS: usize = 8;
