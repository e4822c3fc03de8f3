//! The choice of a fault for a call, and fault rules as text.

use std::time::Instant;

use crate::call::Call;
use crate::faults::Faults;
use crate::{CallKind, Fault, FaultRule, Ledger};

fn call_to(target: &str) -> Call {
    let ledger = Ledger::default();
    let mut call = ledger.arrive(Instant::now(), CallKind::Peer, "app".to_owned());
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
    assert_eq!(faults.rules[0].count, Some(0));
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

#[test]
fn rules_are_parsed_from_text() {
    let rule: FaultRule = "500:share=0.01".parse().unwrap();
    assert_eq!(
        rule.fault,
        Fault::Status {
            code: 500,
            retry_after: None,
            body: None
        }
    );
    assert!((rule.share - 0.01).abs() < f64::EPSILON);

    let rule: FaultRule = "429:retry_after=2,count=10".parse().unwrap();
    assert_eq!(
        rule.fault,
        Fault::Status {
            code: 429,
            retry_after: Some("2".to_owned()),
            body: None
        }
    );
    assert_eq!(rule.count, Some(10));

    let rule: FaultRule = "slow=250ms:destination=slow-".parse().unwrap();
    assert_eq!(rule.fault, Fault::Slow { ms: 250 });
    assert_eq!(rule.destination.as_deref(), Some("slow-"));

    let rule: FaultRule = "half-body:app=a,sender=s,first_calls=1".parse().unwrap();
    assert_eq!(
        rule,
        FaultRule {
            app: Some("a".to_owned()),
            sender: Some("s".to_owned()),
            first_calls: Some(1),
            ..FaultRule::from(Fault::HalfBody)
        }
    );
}

#[test]
fn a_body_extends_to_the_end_of_the_text() {
    let rule: FaultRule = r#"200:count=1,body={"result":"failed","code":1}"#.parse().unwrap();
    assert_eq!(
        rule.fault,
        Fault::Status {
            code: 200,
            retry_after: None,
            body: Some(r#"{"result":"failed","code":1}"#.to_owned())
        }
    );
}

#[test]
fn a_bad_rule_is_refused_with_a_sentence() {
    let error = |text: &str| text.parse::<FaultRule>().unwrap_err().to_string();
    assert!(error("explode").starts_with("unknown fault `explode`: write a status"));
    assert!(error("").starts_with("unknown fault ``"));
    assert!(error("drop:often").starts_with("`often` is not a condition of a fault"));
    assert!(error("drop:when=now").starts_with("`when` is not a condition of a fault"));
    assert_eq!(
        error("drop:share=2"),
        "the share of a fault can't be `2`: write a number from 0 to 1"
    );
    assert_eq!(
        error("drop:share=NaN"),
        "the share of a fault can't be `NaN`: write a number from 0 to 1"
    );
    assert_eq!(
        error("99"),
        "the status of a fault can't be `99`: write a number from 200 to 599"
    );
    assert_eq!(
        error("slow=quick"),
        "the delay of a fault can't be `quick`: write a duration such as 250ms or 3s"
    );
    assert_eq!(
        error("drop:retry_after=2"),
        "`drop` can't have retry_after: write it with a status, such as 503:retry_after=…"
    );
}

#[test]
fn a_rule_is_the_same_after_json() {
    for text in [
        "503:retry_after=1,share=0.5",
        "slow=2s:count=3",
        "drop-before",
        "hang:app=a",
        "garbage:first_calls=2",
        "half_body:sender=s",
    ] {
        let rule: FaultRule = text.parse().unwrap();
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<FaultRule>(&json).unwrap(), rule);
    }
}
