//! What is to be reached.

use serde::Serialize;

/// What is to be reached, and whether it was.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// Of what, and its unit.
    pub what: String,
    /// What was measured; none where that could not be, and then the target is not reached.
    pub value: Option<f64>,
    /// At least or at most.
    pub bound: Bound,
    /// What is to be reached.
    pub to_reach: f64,
    /// Whether it was.
    pub is_met: bool,
}

/// On which side of a target a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not below it.
    AtLeast,
    /// Not above it.
    AtMost,
}

impl Target {
    pub(super) fn at_least(what: impl Into<String>, value: Option<f64>, target: f64) -> Self {
        Self::new(what, value, Bound::AtLeast, target)
    }

    pub(super) fn at_most(what: impl Into<String>, value: Option<f64>, target: f64) -> Self {
        Self::new(what, value, Bound::AtMost, target)
    }

    fn new(what: impl Into<String>, value: Option<f64>, bound: Bound, to_reach: f64) -> Self {
        let is_met = value.is_some_and(|value| match bound {
            Bound::AtLeast => value >= to_reach,
            Bound::AtMost => value <= to_reach,
        });
        Self {
            what: what.into(),
            value,
            bound,
            to_reach,
            is_met,
        }
    }
}
