//! Panics on request, for tests of the recovery from defects. Optimised builds never panic here.

/// Panics here if `WORKER_TEST_PANICS` asks for it: `recorder=2` twice, `delivery:17=1` once and for message 17 alone.
#[cfg(debug_assertions)]
pub(super) fn panic_point(place: &str, message_id: i64) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Asked {
        place: String,
        message_id: Option<i64>,
        panics_left: AtomicU32,
    }

    fn parse(text: &str) -> Option<Asked> {
        let (place, panics) = text.split_once('=')?;
        let (place, message_id) = match place.split_once(':') {
            Some((place, id)) => (place, Some(id.parse().ok()?)),
            None => (place, None),
        };
        Some(Asked {
            place: place.to_owned(),
            message_id,
            panics_left: AtomicU32::new(panics.parse().ok()?),
        })
    }

    static ASKED: OnceLock<Vec<Asked>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var("WORKER_TEST_PANICS").unwrap_or_default();
        text.split(',').filter_map(parse).collect()
    });
    for asked in asked {
        let is_here = asked.place == place && asked.message_id.is_none_or(|id| id == message_id);
        let take_one = |left: u32| left.checked_sub(1);
        if is_here
            && asked
                .panics_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
                .is_ok()
        {
            panic!("WORKER_TEST_PANICS asks for it");
        }
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn panic_point(_place: &str, _message_id: i64) {}
