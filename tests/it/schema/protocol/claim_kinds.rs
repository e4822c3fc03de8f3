//! `signaling.claim`: first attempts and retries share the slots.

use super::{Claim, make_retries, world};

#[tokio::test]
async fn retries_get_a_fifth_of_the_slots_between_those_of_first_attempts() {
    let world = world().await;
    world.insert_many(200).await;
    // All retries are older than all first attempts.
    make_retries(&world, "id <= 100").await;
    let claimed = Claim::of_at_most(20).run(&world.pool).await;
    let kinds: String = claimed
        .messages
        .iter()
        .map(|message| if message.is_retry { 'r' } else { 'f' })
        .collect();
    assert_eq!(kinds, "ffrffffrffffrffffrff");
    for is_retry in [false, true] {
        let of_kind = claimed.messages.iter();
        let of_kind = of_kind.filter(|message| message.is_retry == is_retry);
        let is_oldest_first = of_kind.map(|message| message.id).is_sorted();
        assert!(is_oldest_first, "retries: {is_retry}");
    }
}

#[tokio::test]
async fn retries_get_a_fifth_on_average_where_claims_are_of_one_message() {
    let world = world().await;
    world.insert_many(400).await;
    make_retries(&world, "id % 2 = 0").await;
    let claim = Claim {
        // Slots for all claims of this test.
        horizon: "10 seconds",
        ..Claim::of_at_most(1)
    };
    let mut retries = 0;
    for _ in 0..200 {
        let claimed = claim.run(&world.pool).await;
        assert_eq!(claimed.messages.len(), 1);
        retries += claimed.retries();
    }
    // 40 on average, with a standard deviation of 5.7.
    assert!((10..=70).contains(&retries), "{retries} of 200");
}

#[tokio::test]
async fn each_kind_gets_the_slots_that_the_other_one_leaves_over() {
    for (firsts, retries, expected) in [(0, 40, 20), (40, 0, 0), (4, 40, 16), (40, 2, 2)] {
        let world = world().await;
        world.insert_many(firsts + retries).await;
        make_retries(&world, &format!("id > {firsts}")).await;
        let claimed = Claim::of_at_most(20).run(&world.pool).await;
        assert_eq!(
            (claimed.messages.len(), claimed.retries()),
            (20, expected),
            "{firsts} first attempts and {retries} retries"
        );
    }
}
