//! Which events go out together, and that it is the same for everybody.

use std::sync::Weak;

use proptest::prelude::*;

use super::*;
use crate::event::{Channel, Epoch, Payload, ShapeId, Shaped};

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

fn event(bytes: usize) -> Arc<Event> {
    let payload = format!("\"{}\"", "x".repeat(bytes));
    let payload = Payload::parse(payload.as_bytes(), usize::MAX).unwrap();
    Arc::new(Event::new(Channel::new("a").unwrap(), payload, Epoch::random().at(1)))
}

proptest! {
    #[test]
    fn a_window_ends_on_the_grid(window in 1_000_000_u64..10_000_000_000, now in 0_u64..1 << 60) {
        let windows = Windows::default();
        let (window, now) = (Duration::from_nanos(window), windows.origin + Duration::from_nanos(now));
        let end = windows.end(window, now);
        prop_assert!(now < end && end <= now + window);
        prop_assert_eq!((end - windows.origin).as_nanos() % window.as_nanos(), 0);
    }
}

#[test]
fn the_same_events_are_one_batch_and_others_are_not() {
    let (windows, events) = (Windows::default(), [event(1), event(1), event(1)]);
    let [one, two, three] = &events;
    let batch = |events: &[&Arc<Event>]| {
        windows.batch(events.iter().map(|event| Arc::clone(event)).collect(), &Plain)
    };
    let (all, end) = (batch(&[one, two, three]), batch(&[two, three]));
    assert!(Arc::ptr_eq(&all, &batch(&[one, two, three])));
    assert!(Arc::ptr_eq(&end, &batch(&[two, three])));
    // No room for a third that ends so: it is right all the same.
    let (third, again) = (batch(&[one, three]), batch(&[one, three]));
    assert!(!Arc::ptr_eq(&third, &again));
    assert!(Arc::ptr_eq(&third.events[0], one) && Arc::ptr_eq(&third.events[1], three));
}

#[test]
fn batches_that_nobody_holds_are_bounded_and_events_hold_none() {
    let windows = Windows::default();
    let events: Vec<_> = (0..100).map(|_| event(50_000)).collect();
    let batches = events.iter().map(|event| windows.batch(vec![Arc::clone(event)], &Plain));
    let batches: Vec<_> = batches.map(|batch| Arc::downgrade(&batch)).collect();
    let held = batches.iter().filter_map(Weak::upgrade).map(|batch| weight(&batch)).sum::<usize>();
    assert!((1..=RECENT_BYTES).contains(&held), "{held}");
    let large = windows.batch(vec![event(2 * RECENT_BYTES)], &Plain);
    assert_eq!(Arc::strong_count(&large), 2, "the newest is held, however large");
    assert!(batches.iter().all(|batch| batch.upgrade().is_none()));
}
