//! The ledger's kept calls, totals and waits.

use std::sync::Arc;
use std::time::Duration;

use crate::call::Call;
use crate::ledger::{Admission, OTHER_APPS};
use crate::{CallKind, Ledger, Summary};

/// A call of the message `payload` that arrives `at_ms` after the ledger's start, and is accepted.
fn accept(ledger: &Ledger, at_ms: u64, payload: &str) -> Call {
    let mut call = arrive(ledger, at_ms, payload);
    ledger.admit(&call, None);
    call.accepted = true;
    call.status = Some(200);
    ledger.decide(&call);
    call
}

fn arrive(ledger: &Ledger, at_ms: u64, payload: &str) -> Call {
    let at = ledger.started + Duration::from_millis(at_ms);
    let mut call = ledger.arrive(at, CallKind::Peer, "app".to_owned());
    call.set_message("bob".to_owned(), payload.to_owned());
    call
}

#[test]
fn totals_include_calls_that_are_no_longer_kept() {
    let ledger = Ledger::with_kept_calls(3);
    for n in 0..10 {
        accept(&ledger, n * 250, &n.to_string());
    }
    let kept: Vec<_> = ledger.calls().iter().map(|call| call.seq).collect();
    assert_eq!(kept, [8, 9, 10]);
    let summary = ledger.summary();
    assert_eq!((summary.calls, summary.accepted), (10, 10));
    assert_eq!(summary.untracked_messages, 7);
    let app = &summary.apps["app"];
    assert_eq!(app.worst_sliding_second, 4);
    assert_eq!((app.first_at_us, app.last_at_us), (0, 2_250_000));
    assert!((app.calls_per_s - 4.0).abs() < 1e-9);
}

#[test]
fn a_message_accepted_twice_or_more_is_one_duplicate() {
    let ledger = Ledger::default();
    for at_ms in 0..3 {
        accept(&ledger, at_ms, "again");
    }
    accept(&ledger, 3, "once");
    assert_eq!(ledger.summary().duplicates, 1);
}

#[test]
fn a_refused_call_is_no_duplicate() {
    let ledger = Ledger::default();
    accept(&ledger, 0, "hello");
    let mut refused = arrive(&ledger, 1, "hello");
    refused.status = Some(429);
    ledger.decide(&refused);
    let summary = ledger.summary();
    assert_eq!((summary.accepted, summary.duplicates), (1, 0));
    let app = &summary.apps["app"];
    assert_eq!(app.by_status[&200], 1);
    assert_eq!(app.by_status[&429], 1);
    assert_eq!(app.worst_sliding_second, 2);
}

#[test]
fn a_call_has_no_status_until_the_response() {
    let ledger = Ledger::default();
    let mut call = arrive(&ledger, 0, "hello");
    call.accepted = true;
    ledger.decide(&call);
    assert_eq!(ledger.calls()[0].status, None);
    assert_eq!(ledger.summary().apps["app"].unanswered, 1);
    ledger.responded(&call, 200);
    assert_eq!(ledger.calls()[0].status, Some(200));
    assert_eq!(ledger.summary().apps["app"].unanswered, 0);
}

#[test]
fn calls_are_found_by_payloads_too_long_to_keep() {
    let ledger = Ledger::default();
    let long = "x".repeat(257);
    accept(&ledger, 0, &long);
    accept(&ledger, 1, "short");
    let found = ledger.calls_for_payload(&long);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].payload, None);
    assert_eq!(found[0].payload_bytes, 257);
    assert_eq!(
        ledger.calls_for_payload("short")[0].payload.as_deref(),
        Some("short")
    );
}

#[test]
fn a_cleared_ledger_counts_no_older_call_and_keeps_the_limit() {
    let ledger = Ledger::default();
    let open = arrive(&ledger, 0, "hello");
    let first = ledger.admit(&open, Some(1));
    assert_eq!(first, Admission::Admitted { nth: Some(1) });
    ledger.clear();
    ledger.decide(&open);
    ledger.responded(&open, 200);
    let summary = ledger.summary();
    let nothing = Summary {
        at_us: summary.at_us,
        ..Summary::default()
    };
    assert_eq!(summary, nothing);

    let next = arrive(&ledger, 1, "hello");
    assert_eq!(next.seq, 2);
    assert_eq!(ledger.admit(&next, Some(1)), Admission::OverLimit);
}

#[test]
fn apps_beyond_the_first_thousand_share_their_totals() {
    let ledger = Ledger::default();
    for n in 0..1_010 {
        ledger.arrive(ledger.started, CallKind::Peer, format!("app-{n}"));
    }
    let summary = ledger.summary();
    assert_eq!(summary.calls, 1_010);
    assert_eq!(summary.apps.len(), 1_001);
    assert_eq!(summary.apps[OTHER_APPS].calls, 10);
}

#[tokio::test]
async fn a_wait_ends_with_the_awaited_call() {
    let ledger = Arc::new(Ledger::default());
    let waiting = tokio::spawn({
        let ledger = Arc::clone(&ledger);
        async move { ledger.wait_for_calls(2, Duration::from_secs(60)).await }
    });
    for n in 0..2 {
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        accept(&ledger, n, "hello");
    }
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_that_times_out_shows_the_summary() {
    let ledger = Ledger::default();
    accept(&ledger, 0, "hello");
    let error = ledger
        .wait_for_accepted(2, Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("accepted: 1"), "{error}");
}
