//! Decides whether a 429 is the fault of its destination or of the app's budget. A 429 is the destination's fault if the
//! API throttled the destination before, while it accepted messages to others. The memory is bounded.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::push_bounded;

const MAX_THROTTLED: usize = 256;
const RECENT_CALLS: usize = 256;
/// The budget explains a 429 if more than one in this many calls to other destinations met a 429 of the budget. A larger share
/// would charge messages that a budget below the limit throttles twice.
const OTHERS_THROTTLED: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ThrottledDestinations {
    /// Destinations whose last call was answered 429.
    throttled: VecDeque<u64>,
    recent: VecDeque<(u64, Call)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Accepted,
    ThrottledByBudget,
    ThrottledByDestination,
}

/// Does nothing, because the model has no 429s. Otherwise it would explore each order of accepted messages.
impl Hash for ThrottledDestinations {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl ThrottledDestinations {
    pub(super) fn accepted(&mut self, target: u64) {
        self.throttled.retain(|known| *known != target);
        push_bounded(&mut self.recent, (target, Call::Accepted), RECENT_CALLS);
    }

    /// Adds a 429. True if its destination is at fault, and not the budget of the app.
    pub(super) fn is_at_fault(&mut self, target: u64) -> bool {
        let is_of_target = |(known, _): &&(u64, Call)| *known == target;
        let was_throttled = self.throttled.contains(&target)
            || (self.recent.iter().filter(is_of_target)).any(|(_, call)| *call != Call::Accepted);
        let others = self.recent.iter().filter(|call| !is_of_target(call));
        let count = |kind| others.clone().filter(|(_, call)| *call == kind).count();
        let is_at_fault = was_throttled
            && count(Call::Accepted) > 0
            && count(Call::ThrottledByBudget) * OTHERS_THROTTLED <= others.clone().count();
        let call = if is_at_fault {
            Call::ThrottledByDestination
        } else {
            Call::ThrottledByBudget
        };
        self.throttled.retain(|known| *known != target);
        push_bounded(&mut self.throttled, target, MAX_THROTTLED);
        push_bounded(&mut self.recent, (target, call), RECENT_CALLS);
        is_at_fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept_100_others(throttled: &mut ThrottledDestinations) {
        for other in 0..100 {
            throttled.accepted(1_000 + other);
        }
    }

    #[test]
    fn a_429_that_one_destination_explains_is_its_fault_from_the_second_one_on() {
        let mut throttled = ThrottledDestinations::default();
        accept_100_others(&mut throttled);
        assert!(!throttled.is_at_fault(1));
        assert!(throttled.is_at_fault(1));
        accept_100_others(&mut throttled);
        assert!(throttled.is_at_fault(1), "its last call was throttled");
        throttled.accepted(1);
        for _ in 0..3 {
            accept_100_others(&mut throttled);
        }
        assert!(!throttled.is_at_fault(1), "its last call was accepted");
    }

    #[test]
    fn a_429_of_an_app_with_one_destination_is_the_fault_of_the_budget() {
        let mut throttled = ThrottledDestinations::default();
        for _ in 0..10 {
            throttled.accepted(1);
            assert!(!throttled.is_at_fault(1));
        }
    }

    #[test]
    fn a_429_while_others_are_throttled_is_the_fault_of_the_budget() {
        let mut throttled = ThrottledDestinations::default();
        for other in 0..10 {
            throttled.accepted(1_000 + other);
            assert!(!throttled.is_at_fault(2_000 + other));
        }
        for other in 0..10 {
            assert!(!throttled.is_at_fault(2_000 + other), "again");
        }
    }

    #[test]
    fn a_message_that_a_small_budget_throttles_twice_is_not_at_fault() {
        let mut throttled = ThrottledDestinations::default();
        for other in 0..8 {
            for accepted in 0..40 {
                throttled.accepted(10_000 + other * 100 + accepted);
            }
            assert!(!throttled.is_at_fault(20_000 + other));
        }
        assert!(
            !throttled.is_at_fault(20_000),
            "three in a hundred calls met a 429"
        );
    }

    #[test]
    fn two_channels_that_are_always_throttled_are_both_at_fault() {
        let mut throttled = ThrottledDestinations::default();
        assert!(!throttled.is_at_fault(1));
        assert!(!throttled.is_at_fault(2));
        for _ in 0..3 {
            accept_100_others(&mut throttled);
        }
        assert!(throttled.is_at_fault(1));
        assert!(throttled.is_at_fault(2));
    }

    #[test]
    fn a_channel_whose_calls_are_throttled_in_part_is_at_fault() {
        let mut throttled = ThrottledDestinations::default();
        for other in 0..20 {
            throttled.accepted(1_000 + other);
            throttled.accepted(1);
        }
        assert!(!throttled.is_at_fault(1));
        throttled.accepted(1);
        throttled.accepted(1_001);
        assert!(throttled.is_at_fault(1));
    }
}
