//! Who of a run is to stop, and why. The first reason counts.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::end::Ended;

/// Why somebody has to stop; `None`: nobody has said so.
pub(super) type Reason = Option<Ended>;

#[derive(Debug, Default)]
pub(super) struct Stops {
    /// For all, those who are still to come included.
    all: watch::Sender<Reason>,
    /// For each place on the board.
    places: Mutex<Vec<watch::Sender<Reason>>>,
}

impl Stops {
    /// One more place.
    pub(super) fn add_place(&self) {
        self.places.lock().push(watch::Sender::new(self.reason()));
    }

    /// Tells the place when it has to stop.
    pub(super) fn of_place(&self, place: usize) -> Option<watch::Receiver<Reason>> {
        self.places.lock().get(place).map(watch::Sender::subscribe)
    }

    /// Stops all.
    pub(super) fn stop(&self, reason: &Ended) {
        set_once(&self.all, reason);
        self.places.lock().iter().for_each(|place| set_once(place, reason));
    }

    /// Stops one place.
    pub(super) fn stop_place(&self, place: usize, reason: &Ended) {
        if let Some(place) = self.places.lock().get(place) {
            set_once(place, reason);
        }
    }

    /// Why all have to stop.
    pub(super) fn reason(&self) -> Reason {
        self.all.borrow().clone()
    }
}

fn set_once(stop: &watch::Sender<Reason>, reason: &Ended) {
    stop.send_if_modified(|stopped| {
        let is_first = stopped.is_none();
        stopped.get_or_insert_with(|| reason.clone());
        is_first
    });
}
