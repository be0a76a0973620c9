//! What events with the same fields meant before: most reports of a job say the same but for what ends
//! nothing.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::event::{Payload, Rules, Verdict};

/// Verdicts that are remembered, at most; then all are forgotten.
const MOST: usize = 1024;
/// Longer fields are not remembered.
const BYTES: usize = 256;

/// What else than the fields a verdict hangs on: the rules that are for the channel, and whether the channel
/// is one of tasks, whose reports count in percent.
pub(super) type Kind = (Rules, bool);

/// What is remembered of one shape: for each kind of channel, by the fields as they are written.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<HashMap<Kind, HashMap<Box<str>, Verdict>>>);

impl Verdicts {
    /// What `fields` mean where `rules` count; `find` finds out.
    pub(super) fn get(
        &self,
        (kind, fields): (Kind, &Payload),
        find: impl FnOnce() -> Verdict,
    ) -> Verdict {
        let fields = fields.as_str();
        if let Some(known) = self.0.lock().get(&kind).and_then(|known| known.get(fields)) {
            return *known;
        }
        let verdict = find();
        if fields.len() <= BYTES {
            let mut known = self.0.lock();
            let known = known.entry(kind).or_default();
            if known.len() == MOST {
                known.clear();
            }
            known.insert(fields.into(), verdict);
        }
        verdict
    }
}
