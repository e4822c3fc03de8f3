//! Keeps one destination from using up all places in flight, or the app's calls a second.
//!
//! - **Places**: claims avoid a destination that has an eighth of the places in flight, because it answers slowly.
//! - **Throttling**: a 429 is the destination's fault if that was throttled before, while messages to others were accepted.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::message::Target;

/// The share of one destination is one in this many places.
const SHARE: usize = 8;
/// The number of destinations that are remembered because they were throttled.
const MAX_THROTTLED: usize = 256;
/// The last calls, by which a destination is compared with the others.
const RECENT_CALLS: usize = 64;
/// Other destinations count as accepted if at most one in this many calls to them was throttled.
const OTHERS_THROTTLED: usize = 16;

fn share(max_in_flight: usize) -> usize {
    max_in_flight.div_ceil(SHARE)
}

/// The destinations and channels of one app, as this worker knows them.
#[derive(Debug, Default)]
pub(in crate::worker) struct Destinations {
    hasher: RandomState,
    /// Messages from their claim until they are recorded.
    in_flight: HashMap<String, usize>,
    /// Destinations with their share of the places.
    crowded: Vec<String>,
    /// Destinations whose last call was answered 429, the last one at the end.
    throttled: VecDeque<u64>,
    /// Calls that were accepted or throttled.
    recent: VecDeque<(u64, bool)>,
}

impl Destinations {
    pub(in crate::worker) fn hash(&self, target: &Target) -> u64 {
        self.hasher.hash_one(target.name())
    }

    /// Takes a place for a message, unless half of all places belong to its destination already: a claim may bring many
    /// messages at once to one that had few in flight.
    pub(in crate::worker) fn enter(&mut self, target: &str, max_in_flight: usize) -> bool {
        let count = self.in_flight.get(target).copied().unwrap_or(0);
        if count >= max_in_flight.div_ceil(2) {
            return false;
        }
        self.in_flight.insert(target.to_owned(), count + 1);
        if count + 1 >= share(max_in_flight) && !self.crowded.iter().any(|known| known == target) {
            self.crowded.push(target.to_owned());
        }
        true
    }

    pub(in crate::worker) fn leave(&mut self, target: &str, max_in_flight: usize) {
        let Some(count) = self.in_flight.get_mut(target) else {
            return;
        };
        *count -= 1;
        // Waits until a quarter of the share is free, so that one claim fills several places.
        if *count * 4 < share(max_in_flight) * 3 {
            self.crowded.retain(|known| known != target);
        }
        if *count == 0 {
            self.in_flight.remove(target);
        }
    }

    /// The destinations that have their share of the places: about ten at most.
    pub(in crate::worker) fn crowded(&self) -> &[String] {
        &self.crowded
    }

    pub(in crate::worker) fn accepted(&mut self, target: u64) {
        self.throttled.retain(|known| *known != target);
        self.remember(target, false);
    }

    /// Takes in a 429. True if the destination is at fault, and not the budget of the app.
    pub(in crate::worker) fn throttled(&mut self, target: u64) -> bool {
        let own = self.recent.iter().filter(|(known, _)| *known == target);
        let was_throttled =
            self.throttled.contains(&target) || own.clone().any(|(_, is_throttled)| *is_throttled);
        let others = self.recent.iter().filter(|(known, _)| *known != target);
        let (all, throttled) = others.fold((0, 0), |(all, throttled), (_, is_throttled)| {
            (all + 1, throttled + usize::from(*is_throttled))
        });
        let others_are_accepted = all > throttled && throttled * OTHERS_THROTTLED <= all;

        self.throttled.retain(|known| *known != target);
        if self.throttled.len() >= MAX_THROTTLED {
            self.throttled.pop_front();
        }
        self.throttled.push_back(target);
        self.remember(target, true);
        was_throttled && others_are_accepted
    }

    fn remember(&mut self, target: u64, is_throttled: bool) {
        if self.recent.len() >= RECENT_CALLS {
            self.recent.pop_front();
        }
        self.recent.push_back((target, is_throttled));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_with_an_eighth_of_the_places_is_avoided_until_it_has_less() {
        let mut destinations = Destinations::default();
        for _ in 0..8 {
            assert!(destinations.crowded().is_empty());
            assert!(destinations.enter("slow", 64));
        }
        assert_eq!(destinations.crowded(), ["slow"]);
        assert!(destinations.enter("other", 64));
        destinations.leave("slow", 64);
        destinations.leave("slow", 64);
        assert_eq!(destinations.crowded(), ["slow"]);
        destinations.leave("slow", 64);
        assert!(destinations.crowded().is_empty());
        destinations.leave("unknown", 64);
    }

    #[test]
    fn a_claim_with_many_messages_to_one_destination_fills_half_of_the_places_at_most() {
        let mut destinations = Destinations::default();
        let entered = (0..16).filter(|_| destinations.enter("slow", 16)).count();
        assert_eq!(entered, 8);
        assert!(destinations.enter("other", 16));
    }

    #[test]
    fn a_429_that_one_destination_explains_is_its_fault_from_the_second_one_on() {
        let mut destinations = Destinations::default();
        for other in 0..100 {
            destinations.accepted(1_000 + other);
        }
        assert!(!destinations.throttled(1));
        assert!(destinations.throttled(1));
        // Long after that, too: its last call was throttled.
        for other in 0..100 {
            destinations.accepted(1_000 + other);
        }
        assert!(destinations.throttled(1));
        // Messages to it were accepted: so it is not known any more.
        destinations.accepted(1);
        for other in 0..100 {
            destinations.accepted(1_000 + other);
        }
        assert!(!destinations.throttled(1));
    }

    #[test]
    fn a_429_of_an_app_with_one_destination_is_the_budgets() {
        let mut destinations = Destinations::default();
        for _ in 0..10 {
            destinations.accepted(1);
            assert!(!destinations.throttled(1));
        }
    }

    #[test]
    fn a_429_while_others_are_throttled_is_the_budgets() {
        let mut destinations = Destinations::default();
        for other in 0..10 {
            destinations.accepted(1_000 + other);
            assert!(!destinations.throttled(2_000 + other));
        }
        for other in 0..10 {
            assert!(!destinations.throttled(2_000 + other), "again");
        }
    }

    #[test]
    fn a_channel_whose_calls_are_throttled_in_part_is_at_fault() {
        let mut destinations = Destinations::default();
        for other in 0..20 {
            destinations.accepted(1_000 + other);
            destinations.accepted(1);
        }
        assert!(!destinations.throttled(1));
        destinations.accepted(1);
        destinations.accepted(1_001);
        assert!(destinations.throttled(1));
    }
}
