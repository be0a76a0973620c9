//! The runs of this node: which there are, which question each answers, and how many there may be.
//!
//! Bounded: so many run at a time, and so many and so much of them are kept, the oldest that has
//! ended going first. A run begins seldom, for it costs money, so the few there are are looked through.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hashlink::LinkedHashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::question::{Caller, Digest, Question, Refusal};
use super::run::Run;
use crate::settings::CouncilSettings;

pub(super) struct Runs {
    most: usize,
    most_of_client: usize,
    most_kept: usize,
    most_bytes: usize,
    reuse: Duration,
    retention: Duration,
    hashers: [RandomState; 2],
    /// Oldest first.
    table: Mutex<LinkedHashMap<String, Entry>>,
}

struct Entry {
    run: Arc<Run>,
    address: String,
    /// Of the question, whoever asks it, and of the caller's.
    of_anybody: Digest,
    of_caller: Digest,
}

impl Runs {
    pub(super) fn new(settings: &CouncilSettings) -> Self {
        Self {
            most: settings.max_runs,
            most_of_client: settings.max_runs_per_client,
            most_kept: settings.kept_runs,
            most_bytes: settings.kept_bytes,
            reuse: settings.reuse,
            retention: settings.retention,
            hashers: [RandomState::new(), RandomState::new()],
            table: Mutex::default(),
        }
    }

    /// The run of this name, unless it has ended too long ago.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Run>> {
        let runs = self.table.lock();
        let entry = runs.get(id).filter(|entry| !self.is_forgotten(entry, Instant::now()))?;
        Some(Arc::clone(&entry.run))
    }

    /// One that has not ended, if there is any.
    pub(super) fn under_way(&self) -> Option<Arc<Run>> {
        let runs = self.table.lock();
        let under_way = runs.values().find(|entry| entry.run.ended.borrow().is_none());
        under_way.map(|entry| Arc::clone(&entry.run))
    }

    /// The newest run that answers the question. `is_back`: whoever asks has watched it before.
    pub(super) fn answering(
        &self,
        question: &Question,
        caller: &Caller,
        is_back: bool,
    ) -> Option<Arc<Run>> {
        let now = Instant::now();
        let (of_caller, of_anybody) =
            (self.digest(question, Some(&caller.name)), self.digest(question, None));
        let runs = self.table.lock();
        let newest = || runs.values().rev().filter(|entry| !self.is_forgotten(entry, now));
        let of_caller = newest().find(|entry| {
            entry.of_caller == of_caller && (is_back || entry.run.answers_again(self.reuse))
        });
        let found =
            of_caller.or_else(|| newest().find(|entry| is_back && entry.of_anybody == of_anybody));
        found.map(|entry| Arc::clone(&entry.run))
    }

    /// Takes in a run that is about to begin. `Some`: there is one of this name or, if its caller has
    /// not named it, one that answers its question.
    ///
    /// # Errors
    /// When there are as many as allowed, or the name is taken.
    pub(super) fn enter(
        &self,
        run: &Arc<Run>,
        caller: &Caller,
        is_named: bool,
    ) -> Result<Option<Arc<Run>>, Refusal> {
        let now = Instant::now();
        let entry = Entry {
            run: Arc::clone(run),
            address: caller.address.clone(),
            of_anybody: self.digest(&run.question, None),
            of_caller: self.digest(&run.question, Some(&caller.name)),
        };
        let mut runs = self.table.lock();
        runs.retain(|_, entry| !self.is_forgotten(entry, now));
        let answers = |known: &&Entry| {
            known.of_caller == entry.of_caller && known.run.answers_again(self.reuse)
        };
        let same = if is_named { None } else { runs.values().rev().find(answers) };
        if let Some(known) = runs.get(&run.id).or(same) {
            let is_same = known.of_anybody == entry.of_anybody;
            return if is_same { Ok(Some(Arc::clone(&known.run))) } else { Err(Refusal::Taken) };
        }
        let under_way = || runs.values().filter(|entry| entry.run.ended.borrow().is_none());
        if under_way().count() >= self.most {
            return Err(Refusal::Full);
        }
        let of_client = under_way().filter(|entry| entry.address == caller.address);
        if of_client.count() >= self.most_of_client {
            return Err(Refusal::FullForClient);
        }
        let mut bytes = runs.values().map(|entry| entry.run.weight()).sum::<usize>();
        while runs.len() >= self.most_kept || bytes > self.most_bytes {
            let ended = |(_, entry): &(&String, &Entry)| entry.run.ended.borrow().is_some();
            let oldest = runs.iter().find(ended).map(|(id, _)| id.clone()).ok_or(Refusal::Full)?;
            bytes -= runs.remove(&oldest).map_or(0, |oldest| oldest.run.weight());
        }
        runs.insert(run.id.clone(), entry);
        Ok(None)
    }

    /// The run has not begun after all.
    pub(super) fn withdraw(&self, run: &Run) {
        self.table.lock().remove(&run.id);
    }

    fn is_forgotten(&self, entry: &Entry, now: Instant) -> bool {
        entry.run.ended.borrow().is_some_and(|ended| now - ended > self.retention)
    }

    fn digest(&self, question: &Question, caller: Option<&str>) -> Digest {
        self.hashers.each_ref().map(|hasher| {
            let mut state = hasher.build_hasher();
            question.hash_into(caller, &mut state);
            state.finish()
        })
    }
}

/// 128 bits by chance, as text. Whoever knows it may watch and stop the run.
pub(super) fn new_id() -> String {
    // Seeded by the system each time: what a hasher makes of it cannot be guessed.
    let half = || RandomState::new().hash_one(fastrand::u64(..));
    format!("{:016x}{:016x}", half(), half())
}
