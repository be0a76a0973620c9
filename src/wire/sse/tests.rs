//! What is encoded once, and for whom.

use super::*;
use crate::event::{Batch, Channel, Epoch, Payload, ShapeId};

#[derive(Debug)]
struct Plain;

impl Shape for Plain {
    fn id(&self) -> ShapeId {
        ShapeId(0)
    }

    fn apply(&self, event: &Event) -> Option<Shaped> {
        Some(Shaped::plain(event.payload.shared()))
    }
}

fn event(payload: &str) -> Arc<Event> {
    let payload = Payload::parse(payload.as_bytes(), usize::MAX).unwrap();
    Arc::new(Event::new(Channel::new("a").unwrap(), payload, Epoch::random().at(1)))
}

fn wire(named: bool, compressed: bool) -> Sse {
    Sse::new(Arc::new(Plain), Variant { named, compressed }, 100)
}

#[test]
fn an_event_is_compressed_once_for_every_id_and_name() {
    let event = event(&format!("\"{}\"", "again and again ".repeat(100)));
    let shaped = event.shaped(&Plain).unwrap();
    let wrapped = wire(false, true).json(shaped);
    assert!(wrapped.starts_with(r#"{"type":"compressed","#), "{wrapped}");
    assert_eq!(wire(true, true).json(shaped).as_ptr(), wrapped.as_ptr());
    assert_eq!(wire(true, false).json(shaped).as_ptr(), shaped.json.as_ptr());

    let snapshot = Outgoing::Snapshot { event: Arc::clone(&event), position: None };
    let text = wire(false, true).encode(&snapshot).body();
    assert_eq!(text, format!("data: {wrapped}\n\n"));
}

#[test]
fn what_is_small_or_no_shorter_stays_as_it_is() {
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(2000).collect();
    for payload in ["\"small\"".to_owned(), format!("\"{random}\"")] {
        let event = event(&payload);
        let shaped = event.shaped(&Plain).unwrap();
        assert_eq!(wire(false, true).json(shaped), payload);
    }
}

#[test]
fn a_batch_is_encoded_once_for_all_who_get_it() {
    let batch = Arc::new(Batch::new(vec![event("1"), event("2")]));
    let outgoing = || Outgoing::Batch(Arc::clone(&batch));
    let frame = wire(false, false).encode(&outgoing());
    assert!(frame.body().ends_with(b"data: {\"type\":\"batch\",\"events\":[1,2]}\n\n"));
    assert_eq!(wire(false, false).encode(&outgoing()).chunk().as_ptr(), frame.chunk().as_ptr());
    let named = wire(true, false).encode(&outgoing()).body();
    assert_eq!(named, [b"event: batch\n", &*frame.body()].concat());
}
