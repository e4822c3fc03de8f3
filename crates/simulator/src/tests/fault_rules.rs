//! The choice of a fault for a call, and fault rules as text.

use std::time::Duration;

use crate::FaultRule;
use crate::faults::{Fault, choose};
use crate::ledger::Call;

fn rules(rules: &[&str]) -> Vec<FaultRule> {
    rules.iter().map(|rule| rule.parse().unwrap()).collect()
}

fn chosen(rules: &mut [FaultRule], target: &str, nth: u32) -> Option<&'static str> {
    let call = Call {
        app_id: "app".to_owned(),
        target: target.to_owned(),
        ..Call::default()
    };
    choose(rules, &call, nth).map(Into::into)
}

#[test]
fn the_first_rule_that_matches_wins() {
    let mut faults = rules(&["drop:destination=b", "hang"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("drop"));
    assert_eq!(chosen(&mut faults, "carol", 1), Some("hang"));
}

#[test]
fn a_rule_without_a_match_leaves_the_call_alone() {
    let mut faults = rules(&["drop:app=other", "drop:destination=c"]);
    assert_eq!(chosen(&mut faults, "bob", 1), None);
}

#[test]
fn a_counted_rule_ends() {
    let mut faults = rules(&["drop:count=2"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 2), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 3), None);
    assert_eq!(faults[0].count, Some(0));
}

#[test]
fn only_the_first_calls_of_a_message_are_hit() {
    let mut faults = rules(&["500:first_calls=1", "drop:first_calls=2"]);
    assert_eq!(chosen(&mut faults, "bob", 1), Some("status"));
    assert_eq!(chosen(&mut faults, "bob", 2), Some("drop"));
    assert_eq!(chosen(&mut faults, "bob", 3), None);
}

#[test]
fn a_share_of_the_calls_is_hit() {
    let mut faults = rules(&["drop:share=0.25"]);
    let hits = (0..2_000).filter(|_| chosen(&mut faults, "bob", 1).is_some());
    let count = hits.count();
    assert!((350..650).contains(&count), "{count}");
}

#[test]
fn rules_are_parsed_from_text() {
    let status = |code, retry_after: Option<&str>, body: Option<&str>| Fault::Status {
        code,
        retry_after: retry_after.map(str::to_owned),
        body: body.map(str::to_owned),
    };
    for (text, fault, count) in [
        ("500:share=0.01", status(500, None, None), None),
        (
            "429:count=10,retry_after=Fri, 1",
            status(429, Some("Fri, 1"), None),
            Some(10),
        ),
        (
            r#"200:count=1,body={"a":1,"b":2}"#,
            status(200, None, Some(r#"{"a":1,"b":2}"#)),
            Some(1),
        ),
        (
            "slow=250ms:destination=slow-",
            Fault::Slow(Duration::from_millis(250)),
            None,
        ),
        ("half_body:app=a,first_calls=1", Fault::HalfBody, None),
    ] {
        let rule: FaultRule = text.parse().unwrap();
        assert_eq!((rule.fault, rule.count), (fault, count), "{text}");
    }
}

#[test]
fn a_bad_rule_is_refused_with_a_sentence() {
    let error = |text: &str| text.parse::<FaultRule>().unwrap_err().to_string();
    assert!(error("explode").starts_with("unknown fault `explode`: write a status"));
    assert!(error("").starts_with("unknown fault ``"));
    assert!(error("drop:often").starts_with("`often` is not a condition: write KEY=VALUE"));
    assert!(error("drop:when=now").starts_with("`when` is not a condition of this fault"));
    assert!(error("drop:retry_after=2").starts_with("`retry_after` is not a condition of this"));
    assert_eq!(
        error("drop:share=2"),
        "the share of a fault can't be `2`: write a number from 0 to 1"
    );
    assert_eq!(
        error("drop:share=NaN"),
        "the share of a fault can't be `NaN`: write a number from 0 to 1"
    );
    assert!(error("99").starts_with("unknown fault `99`: write a status from 200"));
    assert_eq!(
        error("slow=quick"),
        "the delay of a fault can't be `quick`: write a duration such as 250ms or 3s"
    );
}
