//! Class "text": whatever is said and whenever it is read, no letter is missing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Epoch, Payload};
use crate::settings::Settings;
use crate::streams::Streams;

const BOUND: usize = 1000;

/// A stream whose members say `words`.
static SHAPE: LazyLock<Arc<dyn Shape>> = LazyLock::new(|| {
    let mut settings = Settings::load(None, []).unwrap();
    let stream = settings.stream.get_mut("ab_test_results").unwrap();
    stream.class = DeliveryClass::Text;
    stream.text = Some("words".to_owned());
    let streams = Streams::compile(&settings.stream);
    let stream = streams.iter().find(|stream| stream.name == "ab_test_results").unwrap();
    Arc::clone(&stream.shape)
});

fn outbox() -> Outbox {
    Outbox::new(OutboxSettings { class: DeliveryClass::Text, bytes: BOUND })
}

fn event(sequence: u64, payload: &Value) -> Outgoing {
    let payload = Payload::parse(payload.to_string().as_bytes(), usize::MAX).unwrap();
    let (channel, position) = (Channel::new("c").unwrap(), Epoch::random().at(sequence));
    Outgoing::Event(Arc::new(Event::new(channel, payload, position)))
}

/// Adds what is said to the text of each member; its position.
fn hear(outgoing: &Outgoing, texts: &mut BTreeMap<String, String>) -> u64 {
    let Outgoing::Event(event) = outgoing else { panic!("{outgoing:?}") };
    let said: Value = serde_json::from_str(event.payload.as_str()).unwrap();
    let text = texts.entry(said["member"].as_str().unwrap().to_owned()).or_default();
    text.push_str(said["words"].as_str().unwrap());
    event.position.sequence
}

/// Whether no two neighbours could be told as one, but for the newest and the one before it.
fn is_merged(outbox: &Outbox, shape: &dyn Shape) -> bool {
    let events = outbox.queue.iter().map(|outgoing| match outgoing {
        Outgoing::Event(event) => Arc::clone(event),
        other => panic!("{other:?}"),
    });
    let events: Vec<_> = events.collect();
    let (_, older) = events.split_last().unwrap();
    older.windows(2).all(|pair| shape.merge(pair).is_none())
}

proptest! {
    #[test]
    fn no_letter_is_missing_and_ids_rise(
        said in prop::collection::vec(
            ("[ab]", "\\PC{0,20}|[\"\\\\\\n\u{2028}]", prop::bool::weighted(0.1), 0_u8..4), 1..60),
    ) {
        let (shape, mut outbox) = (&**SHAPE, outbox());
        let (mut expected, mut heard) = (BTreeMap::new(), BTreeMap::new());
        let mut last = 0;
        for ((member, words, asks, read), n) in said.iter().zip(1..) {
            let fields = json!({"member": member, "words": words, "asks": asks, "timestamp": n});
            let outgoing = event(n, &fields);
            let one = outgoing.weight(shape);
            match outbox.push(outgoing.clone(), shape) {
                Pushed::Kept => {}
                Pushed::Conflated(_) => prop_assert!(is_merged(&outbox, shape)),
                Pushed::Overflow => break,
            }
            hear(&outgoing, &mut expected);
            prop_assert!(outbox.bytes() <= BOUND.max(one));
            // A client that reads less often than it is told something.
            for _ in 0..read.saturating_sub(2) {
                let Some(outgoing) = outbox.pop(shape) else { break };
                let position = hear(&outgoing, &mut heard);
                prop_assert!(position > last);
                last = position;
            }
        }
        let counted = outbox.bytes();
        let mut rest = 0;
        for outgoing in outbox.take() {
            rest += outgoing.weight(shape);
            let position = hear(&outgoing, &mut heard);
            prop_assert!(position > last);
            last = position;
        }
        prop_assert_eq!(heard, expected);
        prop_assert_eq!(rest, counted);
    }
}

#[test]
fn a_run_is_told_as_one_under_the_id_of_its_last() {
    let (shape, mut outbox) = (&**SHAPE, outbox());
    let say = |n, member: &str| event(n, &json!({"member": member, "words": format!("{n} ")}));
    let mut n = 0;
    let gave_way = loop {
        n += 1;
        match outbox.push(say(n, if (4..=6).contains(&n) { "b" } else { "a" }), shape) {
            Pushed::Kept => {}
            Pushed::Conflated(count) => break count,
            Pushed::Overflow => panic!("it can be told as one"),
        }
    };
    let told = outbox.take().into_iter().map(|outgoing| {
        let mut texts = BTreeMap::new();
        (hear(&outgoing, &mut texts), texts.into_iter().next().unwrap())
    });
    let told: Vec<_> = told.collect();
    let words = |from: u64, to: u64| (from..=to).map(|n| n.to_string() + " ").collect();
    let run = |member: &str, from, to| (to, (member.to_owned(), words(from, to)));
    // The newest found no room before the others were merged.
    assert_eq!(told, [run("a", 1, 3), run("b", 4, 6), run("a", 7, n - 1), run("a", n, n)]);
    assert_eq!(gave_way, usize::try_from(n).unwrap() - told.len());
}

#[test]
fn what_a_client_begins_with_is_whole_and_then_it_may_catch_up_but_fall_no_further_behind() {
    let shape = &**SHAPE;
    let mut outbox = Outbox::new(OutboxSettings { class: DeliveryClass::Log, bytes: BOUND });
    let said = event(1, &json!({"member": "a", "words": "word "}));
    let (many, fit) = (3 * BOUND / said.weight(shape), BOUND / said.weight(shape));
    let room = |outbox: &mut Outbox| {
        (0..2 * many).take_while(|_| outbox.push(said.clone(), shape) == Pushed::Kept).count()
    };
    let read = |outbox: &mut Outbox, count| (0..count).for_each(|_| drop(outbox.pop(shape)));
    outbox.replay(true);
    assert_eq!(room(&mut outbox), 2 * many);
    outbox.replay(false);
    // What comes before the client has read that queues behind.
    assert_eq!(room(&mut outbox), 2 * many);
    read(&mut outbox, 2 * many);
    assert_eq!(room(&mut outbox), fit, "the bound counts from where it is");
    read(&mut outbox, 2 * fit);
    assert_eq!(room(&mut outbox), fit);
    while outbox.pop(shape).is_some() {}
    assert_eq!(room(&mut outbox), fit);
}

#[test]
fn a_state_that_is_behind_keeps_the_newest_of_each_channel() {
    let shape = &**SHAPE;
    let mut outbox = Outbox::new(OutboxSettings { class: DeliveryClass::State, bytes: BOUND });
    let said = |channel: usize| {
        let payload = Payload::parse(b"{}", 9).unwrap();
        let channel = Channel::new(&format!("c{channel}")).unwrap();
        Outgoing::Event(Arc::new(Event::new(channel, payload, Epoch::random().at(1))))
    };
    let many = 3 * BOUND / said(0).weight(shape);
    outbox.replay(true);
    outbox.push(said(0), shape);
    outbox.replay(false);
    assert!((0..many).all(|channel| outbox.push(said(channel), shape) == Pushed::Kept));
    outbox.pop(shape).unwrap();
    // One channel after the other is hot, and each is one of those that wait.
    for n in 0..10 * many {
        let pushed = outbox.push(said(n / 100 % many), shape);
        assert!(matches!(pushed, Pushed::Kept | Pushed::Conflated(_)), "{n}: {pushed:?}");
    }
}

#[test]
fn gaps_have_no_room_beyond_the_bound() {
    let shape = &**SHAPE;
    for class in [DeliveryClass::Log, DeliveryClass::Text, DeliveryClass::State] {
        let mut outbox = Outbox::new(OutboxSettings { class, bytes: BOUND });
        let gap = |n: usize| {
            let reason = crate::hub::GapReason::Dropped;
            Outgoing::Gap { channels: vec![format!("c{n}")], reason, position: None }
        };
        let fit = (0..BOUND).take_while(|n| outbox.push(gap(*n), shape) == Pushed::Kept).count();
        assert!(fit > 1 && outbox.bytes() <= BOUND, "{fit} gaps of {} bytes", outbox.bytes());
    }
}
