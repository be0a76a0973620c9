//! Shards stay evenly loaded, whoever leaves.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Machine, Resume, filters, settings};

proptest! {
    /// `None`: somebody comes; else somebody leaves that shard.
    #[test]
    fn who_comes_is_taken_in_where_the_fewest_are(
        steps in prop::collection::vec(prop::option::weighted(0.4, 0_usize..4), 1..200),
    ) {
        let mut machine = Machine::new(settings(4));
        let filters = filters(&["a:x".to_owned()]);
        let mut loads = [0_usize; 4];
        for step in steps {
            if let Some(shard) = step {
                if loads[shard] > 0 {
                    loads[shard] -= 1;
                    machine.core.depart(shard, &filters);
                }
                continue;
            }
            machine.arrive(Arc::clone(&filters), Resume::Fresh);
            let joined = machine.waiting.iter().position(|waiting| !waiting.is_empty()).unwrap();
            machine.waiting[joined].clear();
            prop_assert_eq!(loads[joined], *loads.iter().min().unwrap());
            loads[joined] += 1;
        }
    }
}
