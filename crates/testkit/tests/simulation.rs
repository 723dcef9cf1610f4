//! Thousands of stories, each with another seed, and the proof that the simulation notices what it is for.

use testkit::simulation::{Planted, Story, simulate};

/// Stories of each of the tests below; they run side by side.
const STORIES: u64 = 500;

/// How a broken story is shown: what is wrong, what led to it, and how to see all of it.
fn shown(story: &Story) -> String {
    let Story { seed, violation, .. } = story;
    let violation = violation.as_deref().unwrap_or("nothing is wrong");
    let tail = story.lines_about_the_violation().join("\n");
    format!(
        "seed {seed}: {violation}\n{tail}\nthe whole log: cargo run -p testkit --features simulation --example simulate -- {seed}"
    )
}

fn play(from: u64) {
    for seed in from..from + STORIES {
        // The whole log is only worth its memory when something is wrong; then it is told again.
        if simulate(seed, None, false).violation.is_some() {
            panic!("{}", shown(&simulate(seed, None, true)));
        }
    }
}

#[test]
fn stories_of_the_first_part() {
    play(0);
}

#[test]
fn stories_of_the_second_part() {
    play(STORIES);
}

#[test]
fn stories_of_the_third_part() {
    play(2 * STORIES);
}

#[test]
fn stories_of_the_fourth_part() {
    play(3 * STORIES);
}

#[test]
fn a_seed_always_tells_the_same_story() {
    for seed in [1, 2, 3] {
        let (first, second) = (simulate(seed, None, true), simulate(seed, None, true));
        let parting = first.log.iter().zip(&second.log).find(|(one, other)| one != other);
        assert_eq!(parting, None, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert!(first.digest.0 > 500, "seed {seed} tells next to nothing");
    }
    assert_ne!(simulate(1, None, false).digest, simulate(2, None, false).digest);
}

/// Without the check of generations, what an old one says ends the present one.
#[test]
fn a_planted_fault_is_noticed() {
    let noticed =
        (0..30).map(|seed| simulate(seed, Some(Planted::StaleEventsBelieved), false)).find(|story| story.violation.is_some());
    let story = noticed.expect("an engine that believes stale events goes through with it");
    assert!(!story.lines_about_the_violation().is_empty(), "{}", shown(&story));
}
