//! Targets: bounds that measurements should keep.

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    /// Name of the measurement, with its unit.
    pub(crate) what: String,
    /// The measured value. A value that could not be measured misses the target.
    pub(crate) value: Option<f64>,
    pub(crate) bound: Bound,
    pub(crate) bound_value: f64,
    pub(crate) is_met: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Target {
    pub(crate) fn at_least(what: impl Into<String>, value: Option<f64>, bound_value: f64) -> Self {
        Self::new(what, value, Bound::AtLeast, bound_value)
    }

    pub(crate) fn at_most(what: impl Into<String>, value: Option<f64>, bound_value: f64) -> Self {
        Self::new(what, value, Bound::AtMost, bound_value)
    }

    fn new(what: impl Into<String>, value: Option<f64>, bound: Bound, bound_value: f64) -> Self {
        let is_met = value.is_some_and(|value| match bound {
            Bound::AtLeast => value >= bound_value,
            Bound::AtMost => value <= bound_value,
        });
        Self {
            what: what.into(),
            value,
            bound,
            bound_value,
            is_met,
        }
    }
}
