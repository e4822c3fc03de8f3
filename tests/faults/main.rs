//! The promise under faults: real workers, producers that commit continuously, and one fault after the other. After each
//! fault, every committed row is final, and no message was repeated without an ambiguous or unrecorded attempt. No sliding
//! second exceeds the limit. Every worker still runs, and sends again within eight seconds.
//!
//! `FAULTS_SEED` repeats a run. `FAULTS_MINUTES` makes it longer: faults come again and again, and last longer.
//! `FAULTS_ONLY` chooses faults by their names, separated by commas.

mod arena;
mod claims;
#[path = "../it/database_proxy.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod database_proxy;
mod fault;
mod fleet;
mod producers;
mod verdict;

use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use arena::Arena;
use fault::Fault;
use harness::SteppedClock;

/// The number of simultaneous arenas. Each has its own database, API, fleet and share of the faults.
const ARENAS: usize = 3;
/// The limit of the app, calls in any sliding second.
const LIMIT: u32 = 200;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is no whole number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_loses_a_message_or_repeats_one_without_a_reason() {
    let seed = number_from("FAULTS_SEED").unwrap_or_else(rand::random);
    let minutes = number_from("FAULTS_MINUTES");
    println!("FAULTS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);

    let only = std::env::var("FAULTS_ONLY").ok();
    let is_chosen = |fault: &Fault| {
        let name = format!("{fault:?}");
        only.as_ref()
            .is_none_or(|only| only.split(',').any(|chosen| chosen == name))
    };
    let all = Fault::value_variants().iter().copied();
    let mut faults: Vec<Fault> = all.filter(is_chosen).collect();
    assert!(!faults.is_empty(), "FAULTS_ONLY={only:?} names none");
    faults.shuffle(&mut rng);

    let ends = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let share = faults.len().div_ceil(ARENAS);
    let arenas = faults.chunks(share).map(|faults| {
        let rng = StdRng::seed_from_u64(rng.random());
        run_arena(faults.to_vec(), rng, minutes.is_some(), ends)
    });
    join_all(arenas).await;
}

/// Goes through `faults` once, and again until `ends`.
async fn run_arena(mut faults: Vec<Fault>, mut rng: StdRng, is_long: bool, ends: Instant) {
    let mut arena = Arena::start(&faults).await;
    loop {
        faults.shuffle(&mut rng);
        for &fault in &faults {
            if fault.steps_a_clock() && SteppedClock::new().is_none() {
                harness::skip(&format!("{fault:?}: this machine has no libfaketime"));
                continue;
            }
            let longest_ms = if is_long { 8_000 } else { 2_000 };
            let lasting = Duration::from_millis(rng.random_range(2_000..=longest_ms));
            arena.suffer(fault, &mut rng, lasting).await;
        }
        if Instant::now() >= ends {
            break;
        }
    }
    arena.stop().await;
}
