use super::*;

const ACCEPTED: Outcome = Outcome::MessageSent;

pub(super) fn attempt(target: u64, kind: AttemptKind, outcome: Outcome) -> Attempt<'static> {
    Attempt {
        outcome,
        error: "it failed",
        may_vote: true,
        target,
        kind,
    }
}

fn first(target: u64, outcome: Outcome) -> Attempt<'static> {
    attempt(target, AttemptKind::First, outcome)
}

/// A worker at a moment.
struct Breaker {
    breaker: CircuitBreaker,
    now: Instant,
}

impl Breaker {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            breaker: CircuitBreaker::new(now),
            now,
        }
    }

    /// A worker of which the API has accepted this many messages.
    fn serving(accepted: u64) -> Self {
        let mut breaker = Self::new();
        for target in 0..accepted {
            breaker.call(1_000 + target, ACCEPTED);
        }
        breaker
    }

    fn call(&mut self, target: u64, outcome: Outcome) -> Verdict {
        self.breaker.observe(first(target, outcome), self.now)
    }

    fn probe(&mut self, outcome: Outcome) -> Verdict {
        let probe = attempt(2, AttemptKind::Probe, outcome);
        self.breaker.observe(probe, self.now)
    }

    /// How many calls to different destinations fail until the worker doubts.
    fn failures_until_doubt(&mut self, outcome: Outcome) -> u64 {
        let mut calls = (1..100).map(|target| self.call(target, outcome).transition);
        let before = calls.position(|transition| transition == Transition::Doubt);
        before.expect("doubts") as u64 + 1
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn others(&mut self, accepted: u64, serving: u32) -> Transition {
        self.breaker.observe_others(accepted, serving, self.now)
    }
}

#[test]
fn a_dead_api_is_doubted_after_eight_failures_and_refused_credentials_sooner() {
    for outcome in [Outcome::Transient, Outcome::Unserved, Outcome::Ambiguous] {
        assert_eq!(Breaker::serving(100).failures_until_doubt(outcome), 8);
        assert_eq!(Breaker::new().failures_until_doubt(outcome), 8);
    }
    let refused = Outcome::Unauthorized;
    assert_eq!(Breaker::new().failures_until_doubt(refused), 2);
    assert_eq!(Breaker::serving(100).failures_until_doubt(refused), 4);
}

#[test]
fn calls_that_fail_by_chance_are_no_reason_to_doubt() {
    let mut breaker = Breaker::serving(1);
    for target in 0..2_000 {
        // Half of them fail, in rows of six.
        let outcome = if target % 12 < 6 {
            Outcome::Transient
        } else {
            ACCEPTED
        };
        let verdict = breaker.call(target, outcome);
        assert_ne!(verdict.transition, Transition::Doubt, "call {target}");
    }
    assert!(breaker.failures_until_doubt(Outcome::Transient) > 12);
}

#[test]
fn a_failure_is_charged_only_where_other_messages_are_accepted() {
    let mut breaker = Breaker::serving(100);
    let verdict = breaker.call(1, Outcome::Transient);
    assert_eq!(
        (verdict.is_charged, verdict.fault),
        (true, Some(Fault::Message))
    );
    let evidence = verdict.evidence.expect("evidence");
    assert_eq!(
        evidence,
        "the API has accepted 63 of the last 64 messages of this worker"
    );
    // The call did not reach the API, so the message can't be at fault.
    assert!(!breaker.call(2, Outcome::Unserved).is_charged);

    breaker.wait(10);
    let verdict = breaker.call(3, Outcome::Transient);
    assert_eq!(
        (verdict.is_charged, verdict.fault),
        (false, Some(Fault::Unclear))
    );
    assert!(!Breaker::new().call(1, Outcome::Transient).is_charged);
}

#[test]
fn messages_of_other_workers_are_evidence_while_they_are_accepted() {
    let mut breaker = Breaker::new();
    assert_eq!(breaker.others(500, 1), Transition::None);
    assert!(
        !breaker.call(1, Outcome::Transient).is_charged,
        "the first reading shows no time"
    );
    breaker.others(501, 1);
    assert!(
        !breaker.call(1, Outcome::Transient).is_charged,
        "this worker may be at fault"
    );

    let mut breaker = Breaker::new();
    breaker.call(1, ACCEPTED);
    breaker.wait(60);
    breaker.others(500, 1);
    breaker.others(501, 1);
    assert!(breaker.call(1, Outcome::Transient).is_charged);
    assert!(!breaker.call(2, Outcome::Transient).is_charged, "several");
}

#[test]
fn a_rejected_message_is_charged_and_says_nothing_against_the_api() {
    let mut breaker = Breaker::new();
    for target in 1..8 {
        breaker.call(target, Outcome::Transient);
    }
    assert!(breaker.call(8, Outcome::Rejected).is_charged);
    assert_eq!(breaker.failures_until_doubt(Outcome::Transient), 8);
}

#[test]
fn a_throttled_call_is_the_budgets_or_the_destinations() {
    let mut breaker = Breaker::serving(10);
    let verdict = breaker.call(1, Outcome::Throttled);
    assert_eq!(
        (verdict.is_charged, verdict.fault),
        (false, Some(Fault::Budget))
    );
    assert_eq!(verdict.transition, Transition::Throttle);
    let verdict = breaker.call(1, Outcome::Throttled);
    assert_eq!(
        (verdict.is_charged, verdict.fault),
        (true, Some(Fault::Destination))
    );
    assert_eq!(verdict.transition, Transition::None);
}

#[test]
fn one_destination_has_one_vote_while_messages_to_others_are_accepted() {
    let mut breaker = Breaker::serving(100);
    for _ in 0..100 {
        let verdict = breaker.call(1, Outcome::Transient);
        assert_eq!(verdict.transition, Transition::None);
    }
}

#[test]
fn an_app_with_one_destination_is_held_too() {
    let mut breaker = Breaker::new();
    breaker.call(1, ACCEPTED);
    let mut transitions = (0..20).map(|_| breaker.call(1, Outcome::Transient).transition);
    assert!(transitions.any(|transition| transition == Transition::Doubt));
}

#[test]
fn destinations_that_led_to_a_doubt_lead_to_no_second_one() {
    let mut breaker = Breaker::new();
    for _ in 0..8 {
        breaker.call(1, Outcome::Transient);
    }
    assert!(matches!(breaker.others(0, 0), Transition::Hold(_)));
    breaker.breaker.lane_held();
    assert_eq!(breaker.probe(ACCEPTED).transition, Transition::Release);
    breaker.wait(60);
    for _ in 0..100 {
        let verdict = breaker.call(1, Outcome::Transient);
        assert_eq!(verdict.transition, Transition::None);
    }
    // Once the API accepts a message to the destination, it has its vote again.
    breaker.call(1, ACCEPTED);
    breaker.wait(60);
    let mut transitions = (0..20).map(|_| breaker.call(1, Outcome::Transient).transition);
    assert!(transitions.any(|transition| transition == Transition::Doubt));
}

#[test]
fn retries_and_calls_that_may_not_vote_have_no_vote() {
    let mut breaker = Breaker::serving(100);
    for target in 0..100 {
        let outcome = Outcome::Ambiguous;
        let retry = attempt(target, AttemptKind::Retry, outcome);
        let late = Attempt {
            may_vote: false,
            ..first(target, outcome)
        };
        for attempt in [retry, late] {
            let verdict = breaker.breaker.observe(attempt, breaker.now);
            assert_eq!(verdict.transition, Transition::None);
        }
    }
}

#[test]
fn the_only_call_of_an_app_is_enough_where_nothing_else_is_due() {
    let mut breaker = Breaker::new();
    assert_eq!(breaker.breaker.nothing_due(breaker.now), Transition::None);
    breaker.call(1, Outcome::Unauthorized);
    assert_eq!(breaker.breaker.nothing_due(breaker.now), Transition::Doubt);
    let hold = Transition::Hold(HoldKind::Unauthorized);
    assert_eq!(breaker.others(0, 0), hold);
    assert_eq!(breaker.breaker.reason, "it failed");

    let mut breaker = Breaker::serving(10);
    breaker.call(1, Outcome::Unauthorized);
    assert_eq!(breaker.breaker.nothing_due(breaker.now), Transition::None);
}

#[test]
fn a_worker_that_doubts_steps_aside_if_messages_of_others_are_accepted() {
    let mut breaker = Breaker::new();
    breaker.failures_until_doubt(Outcome::Unserved);
    assert_eq!(breaker.others(500, 1), Transition::None);
    assert_eq!(breaker.others(501, 1), Transition::None);
    assert!(breaker.breaker.is_doubting());
    assert_eq!(breaker.failures_until_doubt(Outcome::Unserved), 2);
    assert_eq!(breaker.others(501, 1), Transition::None);
    assert_eq!(breaker.others(502, 1), Transition::StepAside);
    assert_eq!(breaker.breaker.aside_reason(), Some("it failed"));

    let now = breaker.now;
    assert!(matches!(
        breaker.breaker.allowance(now, 0),
        Allowance::Wait(_)
    ));
    breaker.wait(10);
    assert_eq!(
        breaker.breaker.allowance(breaker.now, 0),
        Allowance::Claim(1)
    );
    let verdict = breaker.call(1, Outcome::Unserved);
    assert_eq!(
        (verdict.is_charged, verdict.fault),
        (false, Some(Fault::Worker))
    );
    assert!(matches!(
        breaker.breaker.allowance(breaker.now, 0),
        Allowance::Wait(_)
    ));
    breaker.wait(1);
    assert_eq!(breaker.call(2, ACCEPTED).transition, Transition::Return);
    assert_eq!(breaker.breaker.aside_reason(), None);
}

#[test]
fn the_counters_of_a_worker_that_stopped_hold_no_app() {
    let mut breaker = Breaker::serving(10);
    breaker.failures_until_doubt(Outcome::Transient);
    assert_eq!(breaker.others(500, 3), Transition::None);
    for accepted in [300, 100, 50, 1] {
        assert_eq!(breaker.others(accepted, 2), Transition::None);
        assert!(breaker.breaker.is_doubting());
    }
    assert_eq!(breaker.others(2, 2), Transition::None);
    assert_eq!(breaker.failures_until_doubt(Outcome::Transient), 2);
}

#[test]
fn a_worker_comes_back_when_no_other_serves_the_app() {
    let mut breaker = Breaker::new();
    breaker.breaker.step_aside(breaker.now);
    assert_eq!(breaker.others(501, 1), Transition::None);
    assert_eq!(breaker.others(501, 0), Transition::Return);
}

#[test]
fn a_worker_that_doubts_holds_the_app_if_no_message_is_accepted() {
    let mut breaker = Breaker::serving(10);
    breaker.failures_until_doubt(Outcome::Transient);
    let decisions: Vec<_> = (0..10)
        .map_while(|_| Some(breaker.others(500, 1)).filter(|t| *t == Transition::None))
        .collect();
    assert_eq!(decisions.len(), REPORTS_TO_WAIT as usize);
    let mut breaker = Breaker::serving(10);
    breaker.failures_until_doubt(Outcome::Transient);
    assert_eq!(breaker.call(1, ACCEPTED).transition, Transition::None);
    assert_eq!(
        breaker.others(500, 0),
        Transition::None,
        "it doubts no more"
    );
}

#[test]
fn nothing_is_charged_while_the_lane_is_held() {
    let mut breaker = Breaker::serving(100);
    breaker.breaker.lane_held();
    assert_eq!(
        breaker.breaker.allowance(breaker.now, 5),
        Allowance::Claim(1)
    );
    for verdict in [
        breaker.call(1, Outcome::Transient),
        breaker.probe(Outcome::Transient),
    ] {
        assert_eq!(
            (verdict.is_charged, verdict.fault),
            (false, Some(Fault::Api))
        );
    }
    let extended = breaker.probe(Outcome::Unauthorized).transition;
    assert_eq!(extended, Transition::Hold(HoldKind::Unauthorized));
    for answered in [ACCEPTED, Outcome::Rejected, Outcome::Throttled] {
        breaker.breaker.lane_held();
        assert_eq!(breaker.probe(answered).transition, Transition::Release);
    }
}

#[test]
fn open_calls_are_all_allowed_after_a_start_and_double_after_a_hold() {
    let mut breaker = Breaker::new();
    let allowed = |breaker: &mut Breaker| breaker.breaker.allowance(breaker.now, 0);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(1));
    breaker.call(1, ACCEPTED);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(WIDE));
    breaker.breaker.lane_held();
    breaker.breaker.lane_free(breaker.now);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(1));
    assert!(matches!(
        breaker.breaker.allowance(breaker.now, 1),
        Allowance::Wait(_)
    ));
    breaker.call(1, ACCEPTED);
    breaker.call(2, ACCEPTED);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(4));
    breaker.wait(1);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(8));
    breaker.call(3, Outcome::Transient);
    breaker.wait(1);
    assert_eq!(allowed(&mut breaker), Allowance::Claim(8));
    for target in 0..100 {
        breaker.call(target, ACCEPTED);
    }
    assert_eq!(allowed(&mut breaker), Allowance::Claim(WIDE));
}

#[test]
fn a_worker_without_credentials_doubts_itself() {
    let mut breaker = Breaker::serving(100);
    let transition = breaker
        .breaker
        .no_credentials("no file", false, breaker.now);
    assert_eq!(transition, Transition::Doubt);
    assert!(breaker.breaker.is_doubting());
    let probe = breaker.breaker.no_credentials("no file", true, breaker.now);
    assert_eq!(probe, Transition::Hold(HoldKind::Unauthorized));
}

#[test]
fn a_lane_that_can_not_be_held_so_soon_gets_a_few_calls_a_second() {
    let mut breaker = Breaker::new();
    breaker.failures_until_doubt(Outcome::Transient);
    breaker.breaker.hold_refused(breaker.now);
    assert_eq!(
        breaker.breaker.allowance(breaker.now, 0),
        Allowance::Claim(1)
    );
    assert_eq!(breaker.failures_until_doubt(Outcome::Transient), 4);
}

#[test]
fn a_fault_that_is_over_makes_no_worker_step_aside() {
    let mut breaker = Breaker::new();
    breaker.failures_until_doubt(Outcome::Transient);
    breaker.others(500, 1);
    breaker.others(501, 1);
    breaker.call(1, ACCEPTED);
    assert!(!breaker.breaker.is_doubting());
    assert!(breaker.failures_until_doubt(Outcome::Transient) > 8);
}

#[test]
fn a_report_that_comes_late_makes_no_worker_step_aside() {
    for (gap_s, steps_aside) in [(1, true), (4, false)] {
        let mut breaker = Breaker::serving(100);
        breaker.failures_until_doubt(Outcome::Transient);
        breaker.others(100, 3);
        breaker.wait(1);
        assert_eq!(
            breaker.others(110, 3),
            Transition::None,
            "the worker tries again"
        );
        breaker.failures_until_doubt(Outcome::Transient);
        breaker.others(120, 3);
        breaker.wait(gap_s);
        let decision = breaker.others(130, 3);
        let is_aside = decision == Transition::StepAside;
        assert_eq!(is_aside, steps_aside, "{gap_s}: {decision:?}");
    }
}

#[test]
fn a_worker_steps_aside_once_in_ten_seconds_at_most() {
    let mut breaker = Breaker::new();
    breaker.breaker.step_aside(breaker.now);
    breaker.wait(3);
    breaker.call(1, ACCEPTED);
    let decides = |breaker: &mut Breaker| {
        breaker.failures_until_doubt(Outcome::Transient);
        breaker.others(500, 1);
        breaker.others(501, 1)
    };
    assert_eq!(decides(&mut breaker), Transition::None);
    assert_eq!(decides(&mut breaker), Transition::None);
    breaker.wait(7);
    assert_eq!(decides(&mut breaker), Transition::StepAside);
}
