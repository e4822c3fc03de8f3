//! Whether the API is well, as one process sees it from the outcomes of one app's calls.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::outbox::HoldKind;
use crate::outcome::Outcome;

/// So many calls that fail one after the other are an outage, not chance: with one call in five failing by itself,
/// that happens about once in four hundred thousand calls.
const MAX_CONSECUTIVE_FAILURES: u32 = 8;

/// Counts failures in a row, and knows whether the API has ever been well.
#[derive(Debug, Default)]
pub(in crate::worker) struct CircuitBreaker {
    failures: AtomicU32,
    succeeded: AtomicBool,
}

/// What an outcome says of the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Transition {
    None,
    /// The probe of a held lane found the API well.
    Release,
    /// The lane is to be held, or held on.
    Hold(HoldKind),
}

impl CircuitBreaker {
    /// Whether the API has been well to this process. Before, one call at a time is enough to find out that the
    /// credentials are wrong or that the API is away.
    pub(in crate::worker) fn has_succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Takes the API for well without a proof.
    pub(in crate::worker) fn assume_available(&self) {
        self.succeeded.store(true, Ordering::Relaxed);
    }

    /// Takes in an outcome. A probe's is about the hold; any other call's is one among many.
    pub(in crate::worker) fn observe(&self, outcome: &Outcome, probe: bool) -> Transition {
        match outcome {
            Outcome::Unauthorized => Transition::Hold(HoldKind::Unauthorized),
            // The API has answered and means it: it is there, and knows us.
            Outcome::Accepted(_) | Outcome::Rejected | Outcome::Throttled(_) => {
                self.failures.store(0, Ordering::Relaxed);
                self.succeeded.store(true, Ordering::Relaxed);
                if probe {
                    Transition::Release
                } else {
                    Transition::None
                }
            }
            Outcome::Transient(_) | Outcome::Unserved(_) | Outcome::Ambiguous => {
                let failures = self
                    .failures
                    .fetch_add(1, Ordering::Relaxed)
                    .saturating_add(1);
                if probe || failures >= MAX_CONSECUTIVE_FAILURES {
                    self.failures.store(0, Ordering::Relaxed);
                    Transition::Hold(HoldKind::Unavailable)
                } else {
                    Transition::None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Acceptance;

    const FINE: Outcome = Outcome::Accepted(Acceptance::Sent);

    #[test]
    fn a_row_of_failures_is_an_outage_and_a_success_in_between_is_not() {
        let health = CircuitBreaker::default();
        for _ in 0..100 {
            for _ in 1..MAX_CONSECUTIVE_FAILURES {
                assert_eq!(
                    health.observe(&Outcome::Transient(None), false),
                    Transition::None
                );
            }
            assert_eq!(health.observe(&FINE, false), Transition::None);
        }
        for _ in 1..MAX_CONSECUTIVE_FAILURES {
            assert_eq!(health.observe(&Outcome::Ambiguous, false), Transition::None);
        }
        assert_eq!(
            health.observe(&Outcome::Transient(None), false),
            Transition::Hold(HoldKind::Unavailable)
        );
    }

    #[test]
    fn a_probe_decides_alone() {
        let health = CircuitBreaker::default();
        assert_eq!(
            health.observe(&Outcome::Transient(None), true),
            Transition::Hold(HoldKind::Unavailable)
        );
        assert_eq!(
            health.observe(&Outcome::Unauthorized, true),
            Transition::Hold(HoldKind::Unauthorized)
        );
        assert_eq!(
            health.observe(&Outcome::Throttled(None), true),
            Transition::Release
        );
        assert_eq!(health.observe(&FINE, true), Transition::Release);
    }

    #[test]
    fn one_refused_sign_in_parks() {
        assert_eq!(
            CircuitBreaker::default().observe(&Outcome::Unauthorized, false),
            Transition::Hold(HoldKind::Unauthorized)
        );
    }
}
