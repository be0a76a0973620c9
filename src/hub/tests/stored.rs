//! Stored states: when one is news, and what it may say of a channel's end.

use super::*;

#[test]
fn a_stored_state_counts_only_when_it_is_news() {
    let mut machine = Machine::new(settings(1));
    let is_news = |core: &mut Core, text: &str, again: bool| {
        let before = core.position().sequence;
        let payload = Payload::parse(text.as_bytes(), 100).unwrap();
        core.seed(Incoming::plain(Channel::new("a:x").unwrap(), payload), again);
        core.position().sequence > before
    };
    assert!(is_news(&mut machine.core, "1", false), "nothing was heard yet");
    assert!(!is_news(&mut machine.core, "1", false), "read once more");
    assert!(is_news(&mut machine.core, "0", false), "read once more, and it says something else");
    let payload = Payload::parse(b"1", 1).unwrap();
    machine.core.publish(Incoming::plain(Channel::new("a:x").unwrap(), payload));
    assert!(
        !is_news(&mut machine.core, "2", false),
        "heard since it is listened to: at least as new"
    );

    machine.core.lost();
    machine.core.connected(&[]);
    assert!(!is_news(&mut machine.core, "1", false), "after a gap, but it says what is known");
    assert!(
        is_news(&mut machine.core, "1", true),
        "after a gap it is said again to those who listen"
    );

    machine.core.lost();
    machine.core.connected(&[]);
    assert!(is_news(&mut machine.core, "3", false), "after a gap, and it says something else");
}
