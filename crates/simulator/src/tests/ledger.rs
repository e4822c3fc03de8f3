//! The ledger's kept calls and totals.

use std::sync::Arc;

use crate::Ledger;
use crate::ledger::Call;

/// A call of the message `payload` that arrives `at_ms` after the ledger's start. Returns whether it is admitted.
fn receive(ledger: &Ledger, at_ms: u64, payload: &str, limit: Option<u32>) -> bool {
    let mut call = Call {
        at_us: at_ms * 1_000,
        app_id: "app".to_owned(),
        ..Call::default()
    };
    call.set_payload(payload.to_owned());
    ledger.change(|state| {
        call.accepted = state.admit(&call, limit).is_some();
        call.status = Some(if call.accepted { 200 } else { 429 });
        state.record(&mut call);
    });
    call.accepted
}

#[test]
fn totals_include_calls_that_are_no_longer_kept() {
    let ledger = Ledger::with_kept_calls(3);
    for n in 0..10 {
        receive(&ledger, n * 250, &n.to_string(), None);
    }
    let kept: Vec<_> = ledger.calls().iter().map(|call| call.seq).collect();
    assert_eq!(kept, [8, 9, 10]);
    let summary = ledger.summary();
    assert_eq!((summary.calls, summary.accepted), (10, 10));
    let app = &summary.apps["app"];
    assert_eq!(app.worst_sliding_second, 4);
    assert_eq!((app.first_at_us, app.last_at_us), (0, 2_250_000));
    assert!((app.calls_per_s() - 4.0).abs() < 1e-9);
}

#[test]
fn a_message_accepted_twice_or_more_is_one_duplicate() {
    let ledger = Ledger::default();
    for at_ms in 0..3 {
        receive(&ledger, at_ms, "again", None);
    }
    receive(&ledger, 3, "once", None);
    assert_eq!(ledger.summary().duplicates, 1);
}

#[test]
fn a_call_over_the_limit_in_a_sliding_second_is_refused_and_does_not_count() {
    let ledger = Ledger::default();
    for (at_ms, admitted) in [
        (0, true),
        (600, true),
        (999, false),
        (1_000, true),
        (1_599, false),
        (1_600, true),
    ] {
        assert_eq!(
            receive(&ledger, at_ms, "hello", Some(2)),
            admitted,
            "{at_ms}"
        );
    }
    let app = &ledger.summary().apps["app"];
    assert_eq!((app.by_status[&200], app.by_status[&429]), (4, 2));
    assert_eq!(app.worst_sliding_second, 4);
}

#[test]
fn a_limit_set_later_counts_earlier_calls() {
    let ledger = Ledger::default();
    assert!(receive(&ledger, 0, "hello", None));
    assert!(!receive(&ledger, 10, "hello", Some(1)));
}

#[test]
fn calls_are_found_by_payloads_too_long_to_keep() {
    let ledger = Ledger::default();
    let long = "x".repeat(257);
    receive(&ledger, 0, &long, None);
    receive(&ledger, 1, "short", None);
    let found = ledger.calls_for_payload(&long);
    assert_eq!((found.len(), &found[0].payload), (1, &None));
    let found = ledger.calls_for_payload("short");
    assert_eq!(found[0].payload.as_deref(), Some("short"));
}

#[test]
fn a_connection_whose_handler_panics_is_not_open_any_more() {
    let ledger = Arc::new(Ledger::default());
    let open = Arc::clone(&ledger).connection_opened();
    assert_eq!(ledger.summary().open_connections, 1);
    let handler = std::thread::spawn(move || {
        let _open = open;
        panic!("for the test");
    });
    handler.join().unwrap_err();
    assert_eq!(ledger.summary().open_connections, 0);
}
