//! Whether the API is well, as one process sees it from the outcomes of one app's calls.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::outbox::HoldKind;
use crate::outcome::Outcome;

/// So many calls that fail one after the other are an outage, not chance: with one call in five failing by itself,
/// that happens about once in four hundred thousand calls.
const FAILURES_OF_AN_OUTAGE: u32 = 8;

/// Counts failures in a row, and knows whether the API has ever been well.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicU32,
    proven: AtomicBool,
}

/// What an outcome says of the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do.
    Well,
    /// The probe of a held lane found the API well.
    Recovered,
    /// The lane is to be held, or held on.
    Hold(HoldKind),
}

impl Health {
    /// Whether the API has been well to this process. Before, one call at a time is enough to find out that the
    /// credentials are wrong or that the API is away.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Takes the API for well without a proof.
    pub(super) fn assume_well(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Takes in an outcome. A probe's is about the hold; any other call's is one among many.
    pub(super) fn judge(&self, outcome: &Outcome, probe: bool) -> Verdict {
        match outcome {
            Outcome::Unauthorized => Verdict::Hold(HoldKind::Parked),
            // The API has answered and means it: it is there, and knows us.
            Outcome::Accepted(_) | Outcome::Rejected | Outcome::Throttled(_) => {
                self.failures.store(0, Ordering::Relaxed);
                self.proven.store(true, Ordering::Relaxed);
                if probe {
                    Verdict::Recovered
                } else {
                    Verdict::Well
                }
            }
            Outcome::Transient(_) | Outcome::Ambiguous => {
                let failures = self
                    .failures
                    .fetch_add(1, Ordering::Relaxed)
                    .saturating_add(1);
                if probe || failures >= FAILURES_OF_AN_OUTAGE {
                    self.failures.store(0, Ordering::Relaxed);
                    Verdict::Hold(HoldKind::Broken)
                } else {
                    Verdict::Well
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
        let health = Health::default();
        for _ in 0..100 {
            for _ in 1..FAILURES_OF_AN_OUTAGE {
                assert_eq!(
                    health.judge(&Outcome::Transient(None), false),
                    Verdict::Well
                );
            }
            assert_eq!(health.judge(&FINE, false), Verdict::Well);
        }
        for _ in 1..FAILURES_OF_AN_OUTAGE {
            assert_eq!(health.judge(&Outcome::Ambiguous, false), Verdict::Well);
        }
        assert_eq!(
            health.judge(&Outcome::Transient(None), false),
            Verdict::Hold(HoldKind::Broken)
        );
    }

    #[test]
    fn a_probe_decides_alone() {
        let health = Health::default();
        assert_eq!(
            health.judge(&Outcome::Transient(None), true),
            Verdict::Hold(HoldKind::Broken)
        );
        assert_eq!(
            health.judge(&Outcome::Unauthorized, true),
            Verdict::Hold(HoldKind::Parked)
        );
        assert_eq!(
            health.judge(&Outcome::Throttled(None), true),
            Verdict::Recovered
        );
        assert_eq!(health.judge(&FINE, true), Verdict::Recovered);
    }

    #[test]
    fn one_refused_sign_in_parks() {
        assert_eq!(
            Health::default().judge(&Outcome::Unauthorized, false),
            Verdict::Hold(HoldKind::Parked)
        );
    }
}
