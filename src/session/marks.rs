//! Which streams were closed too soon, for as long as it matters.
//!
//! A stream that was closed too soon leaves a *mark*; an opening that finds one takes it and is
//! held, longer each time. The table knows no clock, is asked with the time, and forgets.

use std::time::Duration;

use hashlink::LinkedHashMap;
use tokio::time::Instant;

use crate::settings::LimitSettings;

/// Marked streams of clients at a time; beyond it, the one marked longest ago is forgotten.
const MOST: usize = 65_536;

/// After so many windows without a mark a stream begins again with the shortest hold.
const QUIET_WINDOWS: u32 = 10;

#[derive(Debug)]
pub(super) struct Marks {
    /// For how long a mark can be found.
    window: Duration,
    least: Duration,
    most: Duration,
    /// By stream of a client; the one marked last stands last.
    marked: LinkedHashMap<u64, Marked>,
}

#[derive(Debug)]
struct Marked {
    /// One for each stream that was closed too soon, so that an opening that overtakes the end of
    /// the one before it changes nothing in the long run.
    marks: u32,
    last: Instant,
    /// For how long the next opening is held.
    hold: Duration,
}

impl Marks {
    pub(super) fn new(limits: &LimitSettings) -> Self {
        let LimitSettings { reopen_window: window, hold_least: least, hold_most: most, .. } =
            *limits;
        Self { window, least, most, marked: LinkedHashMap::new() }
    }

    /// Leaves a mark.
    pub(super) fn leave(&mut self, stream: u64, now: Instant) {
        self.forget(now);
        let fresh = Marked { marks: 0, last: now, hold: self.least };
        // Taken out and put back, so that it stands last.
        let mut marked = self.marked.remove(&stream).unwrap_or(fresh);
        let kept = if marked.can_be_found(self.window, now) { marked.marks } else { 0 };
        marked.marks = kept.saturating_add(1);
        marked.last = now;
        self.marked.insert(stream, marked);
        if self.marked.len() > MOST {
            self.marked.pop_front();
        }
    }

    /// Takes a mark, if there is one: for how long the opening is held.
    pub(super) fn take(&mut self, stream: u64, now: Instant) -> Option<Duration> {
        self.forget(now);
        let marked = self.marked.get_mut(&stream)?;
        if !marked.can_be_found(self.window, now) {
            return None;
        }
        marked.marks = marked.marks.checked_sub(1)?;
        let hold = marked.hold;
        marked.hold = (hold * 3 / 2).min(self.most);
        Some(hold)
    }

    fn forget(&mut self, now: Instant) {
        let quiet = self.window * QUIET_WINDOWS;
        while self.marked.front().is_some_and(|(_, marked)| marked.last + quiet < now) {
            self.marked.pop_front();
        }
    }
}

impl Marked {
    fn can_be_found(&self, window: Duration, now: Instant) -> bool {
        self.last + window >= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    const MS: Duration = Duration::from_millis(1);

    /// With a window of a second and holds of 200 ms to a second.
    fn marks() -> (Marks, Instant) {
        let mut limits = Settings::load(None, []).unwrap().limits;
        limits.reopen_window = 1000 * MS;
        (Marks::new(&limits), Instant::now())
    }

    #[test]
    fn each_mark_holds_one_opening() {
        let (mut marks, now) = marks();
        assert_eq!(marks.take(1, now), None);
        marks.leave(1, now);
        marks.leave(1, now);
        assert_eq!(marks.take(2, now), None, "another stream");
        assert_eq!(marks.take(1, now), Some(200 * MS));
        assert_eq!(marks.take(1, now), Some(300 * MS));
        assert_eq!(marks.take(1, now), None);
    }

    #[test]
    fn a_mark_is_found_within_the_window() {
        let (mut marks, now) = marks();
        marks.leave(1, now);
        assert_eq!(marks.take(1, now + 1001 * MS), None);
        marks.leave(1, now + 2000 * MS);
        assert!(marks.take(1, now + 3000 * MS).is_some());
        assert_eq!(marks.take(1, now + 3000 * MS), None, "the first was too old to be kept");
    }

    #[test]
    fn after_ten_windows_of_quiet_nothing_is_left() {
        let (mut marks, now) = marks();
        marks.leave(1, now);
        marks.take(1, now);
        marks.leave(1, now + 10_000 * MS);
        assert_eq!(marks.take(1, now + 10_000 * MS), Some(300 * MS), "not quiet for long enough");
        assert_eq!(marks.take(2, now + 20_001 * MS), None);
        assert!(marks.marked.is_empty());
        marks.leave(1, now + 20_001 * MS);
        assert_eq!(marks.take(1, now + 20_001 * MS), Some(200 * MS));
    }

    #[test]
    fn the_stream_marked_longest_ago_gives_way() {
        let (mut marks, now) = marks();
        for stream in 0..MOST as u64 {
            marks.leave(stream, now);
        }
        marks.leave(0, now);
        marks.leave(u64::MAX, now);
        assert_eq!(marks.marked.len(), MOST);
        assert_eq!(marks.take(1, now), None);
        assert!(marks.take(0, now).is_some(), "marked again");
    }
}
