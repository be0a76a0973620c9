//! Things that several clients wait for, served in turn over the clients: whoever asks for much waits for
//! it, and nobody else does.

use std::collections::{HashMap, VecDeque};

use crate::hub::Asker;

#[derive(Debug)]
pub(super) struct Turns<T> {
    waiting: HashMap<Asker, VecDeque<T>>,
    /// Whose turn it is next.
    order: VecDeque<Asker>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Turns<T> {
    pub(super) fn push(&mut self, by: Asker, thing: T) {
        let own = self.waiting.entry(by).or_insert_with(|| {
            self.order.push_back(by);
            VecDeque::new()
        });
        own.push_back(thing);
    }

    /// The next, with who waits for it.
    pub(super) fn pop(&mut self) -> Option<(Asker, T)> {
        let by = self.order.pop_front()?;
        let own = self.waiting.get_mut(&by)?;
        let thing = own.pop_front()?;
        if own.is_empty() {
            self.waiting.remove(&by);
        } else {
            self.order.push_back(by);
        }
        Some((by, thing))
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_much_waits_for_it_alone() {
        let mut turns = Turns::default();
        let [a, b] = [1_u8, 2].map(|n| Asker::from([127, 0, 0, n]));
        (0..1000).for_each(|n| turns.push(a, n));
        turns.push(b, 1000);
        assert_eq!(turns.pop(), Some((a, 0)));
        assert_eq!(turns.pop(), Some((b, 1000)));
        (1..1000).for_each(|n| assert_eq!(turns.pop(), Some((a, n))));
        assert_eq!(turns.pop(), None);
        assert!(turns.waiting.is_empty());
    }
}
