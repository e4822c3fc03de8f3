//! The distance of a claim's first slot, for a database that is far away or slow.

use std::time::Duration;

use super::TOLERANCE;

/// The time from a claim's own time on the database's clock to the arrival of its rows. Without a lookahead of that length,
/// a slow claim would miss its first slot by more than the tolerance, and every later claim would do the same.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookahead(pub(crate) Duration);

/// A claim that takes less is in time for a slot at its own time.
const IN_TIME: Duration = TOLERANCE.checked_div(2).expect("two is not zero");
const LEAST: Duration = Duration::from_millis(1);

impl Lookahead {
    /// With the horizon, this stays below a second, because slots further ahead mean that the API has asked for a pause. A
    /// worker sends nothing while each claim takes longer.
    pub(crate) const MAX: Duration = Duration::from_millis(800);

    /// Takes in the time of a claim. The next claim may take a quarter longer.
    pub(crate) fn observe(&mut self, took: Duration) {
        let faded = self.0 * 7 / 8;
        let enough = (took * 5 / 4).saturating_sub(IN_TIME);
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
        assert_eq!(lookahead.0, Duration::ZERO);
    }

    #[test]
    fn a_slow_claim_counts_at_once_and_is_forgotten_little_by_little() {
        let mut lookahead = Lookahead::default();
        lookahead.observe(40 * MS);
        assert_eq!(lookahead.0, 45 * MS);
        lookahead.observe(20 * MS);
        assert_eq!(lookahead.0, 45 * MS * 7 / 8);
        for _ in 0..30 {
            lookahead.observe(MS);
        }
        assert_eq!(lookahead.0, Duration::ZERO);
        lookahead.observe(90_000 * MS);
        assert_eq!(lookahead.0, Lookahead::MAX);
    }
}
