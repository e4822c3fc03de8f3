//! Panics on request, for tests of the recovery from defects. Optimised builds never panic here.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;

static PANICS_LEFT: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(|| {
    let text = std::env::var("WORKER_TEST_PANICS").unwrap_or_default();
    let points = text.split(',').filter_map(|point| point.split_once('='));
    let points = points.filter_map(|(point, panics)| Some((point.into(), panics.parse().ok()?)));
    Mutex::new(points.collect())
});

/// Panics if `WORKER_TEST_PANICS` names this point: `recorder=2` panics twice, `delivery:17=1` once and for message 17 only.
pub(super) fn panic_point(point: &str, message_id: i64) {
    if !cfg!(debug_assertions) || PANICS_LEFT.lock().is_empty() {
        return;
    }
    for point in [point.to_owned(), format!("{point}:{message_id}")] {
        if let Some(left @ 1..) = PANICS_LEFT.lock().get_mut(&point) {
            *left -= 1;
            panic!("WORKER_TEST_PANICS asks for it");
        }
    }
}
