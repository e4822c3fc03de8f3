//! How far ahead of a claim its first slot has to be, where the database is far away or slow.

use std::time::Duration;

use super::TOLERANCE;

/// How long after its own time a claim's rows get here. A slot that has passed by then by more than the tolerance is
/// missed, and so would be the next one, and every other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookahead(Duration);

/// What gets here sooner is in time for a slot at the claim's own time.
const AT_ONCE: Duration = TOLERANCE.checked_div(2).expect("two is not zero");

/// A lookahead that is shorter is none.
const LEAST: Duration = Duration::from_millis(1);

impl Lookahead {
    /// The longest. With the horizon it stays below a second: slots further ahead mean that the API has asked for a
    /// pause. While a database takes longer than that for a claim, nothing is sent.
    pub(crate) const MAX: Duration = Duration::from_millis(800);

    /// How far ahead of the next claim its first slot has to be.
    pub(crate) fn get(self) -> Duration {
        self.0
    }

    /// Takes in how long after its own time a claim got here: the next one may take a quarter longer. One that was slow
    /// counts at once, those that are quicker count little by little.
    pub(crate) fn observe(&mut self, took: Duration) {
        let faded = self.0 * 7 / 8;
        let enough = (took * 5 / 4).saturating_sub(AT_ONCE);
        self.0 = match enough.max(faded) {
            lookahead if lookahead > LEAST => lookahead.min(Self::MAX),
            _ => Duration::ZERO,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_database_nearby_needs_none() {
        let mut lookahead = Lookahead::default();
        lookahead.observe(4 * MS);
        assert_eq!(lookahead.get(), Duration::ZERO);
    }

    #[test]
    fn a_slow_claim_counts_at_once_and_is_forgotten_little_by_little() {
        let mut lookahead = Lookahead::default();
        lookahead.observe(40 * MS);
        assert_eq!(lookahead.get(), 45 * MS);
        lookahead.observe(20 * MS);
        assert_eq!(lookahead.get(), 45 * MS * 7 / 8);
        for _ in 0..30 {
            lookahead.observe(MS);
        }
        assert_eq!(lookahead.get(), Duration::ZERO);
        lookahead.observe(90_000 * MS);
        assert_eq!(lookahead.get(), Lookahead::MAX);
    }
}
