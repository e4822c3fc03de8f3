use std::sync::Arc;
use std::time::Instant;

use super::super::call::CallKind;
use super::super::ledger::Ledger;
use super::*;

fn call_to(target: &str) -> Call {
    let ledger = Arc::new(Ledger::default());
    let mut call = ledger
        .arrive(Instant::now(), CallKind::Peer, "app".to_owned())
        .call;
    call.sender = "alice".to_owned();
    call.set_message(target.to_owned(), "hello".to_owned());
    call
}

fn faults(rules: &[&str]) -> Faults {
    Faults::new(rules.iter().map(|rule| rule.parse().unwrap()).collect(), 7)
}

fn chosen(faults: &mut Faults, target: &str, nth: u32) -> Option<&'static str> {
    faults
        .choose(&call_to(target), Some(nth))
        .map(|fault| fault.name())
}

#[test]
fn the_first_rule_that_matches_wins() {
    let mut faults = faults(&["drop:destination=b", "hang"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("drop"));
    assert_eq!(chosen(&mut faults, "carol", 1), Some("hang"));
}

#[test]
fn a_rule_without_a_match_leaves_the_call_alone() {
    let mut faults = faults(&["drop:app=other", "drop:sender=bob", "drop:destination=c"]);
    assert_eq!(chosen(&mut faults, "bob", 1), None);
}

#[test]
fn a_counted_rule_ends() {
    let mut faults = faults(&["drop:count=2"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 2), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 3), None);
    assert_eq!(faults.rules()[0].count, Some(0));
}

#[test]
fn only_the_first_calls_of_a_message_are_hit() {
    let mut faults = faults(&["500:first_calls=1", "drop:first_calls=2"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("status"));
    assert_eq!(chosen(&mut faults, "bob", 2), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 3), None);
    assert_eq!(faults.choose(&call_to("bob"), None), None);
}

#[test]
fn a_share_of_the_calls_is_hit_and_the_seed_repeats_it() {
    let hits = || -> Vec<bool> {
        let mut faults = faults(&["drop:share=0.25"]);
        let call = call_to("bob");
        (0..2_000)
            .map(|_| faults.choose(&call, Some(1)).is_some())
            .collect()
    };
    let first = hits();
    let count = first.iter().filter(|&&hit| hit).count();
    assert!((400..600).contains(&count), "{count}");
    assert_eq!(first, hits());
}
