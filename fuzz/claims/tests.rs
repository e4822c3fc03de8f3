//! Runs the fuzz targets for a short time without a fuzzer, on the seeds and on random changes of the seeds. `make fuzz` runs
//! the same functions, and searches by the code that an input reaches.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_INPUTS` makes it longer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Inputs of each target. All targets together take about a second.
const USUAL_INPUTS: u64 = 5_000;
const MAX_BYTES: usize = 8 * 1024;

/// Pieces that parsers treat in a special way.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\n\n",
    b"`",
    b"=",
    b"#",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b", expected ",
    b"Hush7Zq9Hush",
];

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

/// The committed seeds of a target, each with its name.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus_seeds")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("seeds")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed"))
        .collect()
}

/// Changes an input in one to eight places.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 32));
        match random.random_range(0..6) {
            0 => drop(input.drain(at..end)),
            1 => {
                let piece = PIECES.choose(random).expect("pieces");
                input.splice(at..at, piece.iter().copied());
            }
            2 => {
                let piece = input[at..end].to_vec();
                let times = random.random_range(1..=20);
                input.splice(at..at, piece.repeat(times));
            }
            3 => {
                let other = others.choose(random).expect("seeds");
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            4 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            _ => input.insert(at, random.random()),
        }
    }
    input.truncate(MAX_BYTES);
}

/// Runs a target on its seeds and on random changes of them.
fn run(target: &str, check: fn(&[u8])) {
    let seed = variable("FUZZ_SEED").unwrap_or_else(rand::random);
    let count = variable("FUZZ_INPUTS").unwrap_or(USUAL_INPUTS);
    println!("{target}: FUZZ_SEED={seed} FUZZ_INPUTS={count}");
    let seeds = seeds(target);
    let mut random = StdRng::seed_from_u64(seed);
    let try_out = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            println!("the input: \"{}\"", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    };
    for input in &seeds {
        try_out(input);
    }
    let mut input = Vec::new();
    for turn in 0..count {
        // Three of four inputs change the input before, the fourth begins with a seed again.
        if turn % 4 == 0 {
            input.clone_from(seeds.choose(&mut random).expect("seeds"));
        }
        mutate(&mut input, &seeds, &mut random);
        try_out(&input);
    }
}

#[test]
fn any_answer_is_bounded_and_only_a_200_with_a_readable_body_is_a_success() {
    run("answer", super::answer);
}

#[test]
fn any_configuration_is_coherent_or_refused_without_a_secret_in_the_words() {
    run("config_file", super::config_file);
}

/// Guards the tests above: a check that fails is not swallowed on the way.
#[test]
#[should_panic(expected = "found")]
fn an_input_that_breaks_a_claim_fails_the_run() {
    run("answer", |input| assert!(!input.contains(&b'!'), "found"));
}
