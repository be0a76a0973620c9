//! What is encoded once, and for whom.

use super::*;
use crate::event::{Batch, Channel, Epoch, Payload, ShapeId};
use crate::hub::Told;

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

    let snapshot = Outgoing::Snapshot { told: Told::one(&event), index: 0, position: None };
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
    let text = format!(
        "data: {{\"type\":\"batch\",\"events\":[1,2]}}\nid: {}\n\n",
        batch.events[1].position
    );
    assert_eq!(frame.body(), text);
    assert_eq!(wire(false, false).encode(&outgoing()).chunk().as_ptr(), frame.chunk().as_ptr());
    let named = wire(true, false).encode(&outgoing()).body();
    assert_eq!(named, [b"event: batch\n", &*frame.body()].concat());
}

/// Some clients take an id as soon as its line is whole, though the connection breaks before the
/// empty line that ends the event.
#[test]
fn an_event_cut_anywhere_has_no_id_without_its_data() {
    let event = event("{\"n\":1}");
    let snapshot =
        Outgoing::Snapshot { told: Told::one(&event), index: 0, position: Some(event.position) };
    let data = Arc::from("{}");
    let complete = Outgoing::Complete { data, position: event.position };
    for outgoing in [Outgoing::Event(Arc::clone(&event)), snapshot, complete] {
        for named in [false, true] {
            let body = wire(named, false).encode(&outgoing).body();
            let text = str::from_utf8(&body).unwrap();
            let whole = |start: &str, cut: &str| {
                let lines = cut.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                lines.into_iter().any(|line| line.starts_with(start))
            };
            assert!(whole("id: ", text) && text.ends_with("\n\n"), "{text}");
            for cut in (0..text.len()).filter_map(|at| text.get(..at)) {
                assert!(!whole("id: ", cut) || whole("data: ", cut), "{cut}");
            }
        }
    }
}

#[test]
fn a_keep_alive_is_no_empty_event() {
    let body = wire(false, false).encode(&Outgoing::KeepAlive).body();
    assert!(body.starts_with(b": ") && body.ends_with(b"\n") && !body.ends_with(b"\n\n"));
}
