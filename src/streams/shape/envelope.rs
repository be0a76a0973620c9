//! `{"channel","data","timestamp"}`: any payload, and where and when it was published.

use std::time::SystemTime;

use crate::event::Event;

pub(super) fn json(event: &Event) -> String {
    let since_epoch = event.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let channel = serde_json::Value::from(event.channel.as_str());
    let data = event.payload.as_str();
    format!(r#"{{"channel":{channel},"data":{data},"timestamp":{}}}"#, since_epoch.as_millis())
}
