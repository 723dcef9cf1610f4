//! `cargo xtask`: what developers and the CI do to this repository.
#![expect(clippy::print_stdout, reason = "a build tool talks to the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a build tool reads the clock and cargo's variables; the product does not contain it"
)]

mod counts;
mod rust_crate;
mod steps;
mod tools;

use std::{env, process::ExitCode};

use anyhow::Result;

use crate::steps::Repository;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test                 everything the CI checks: format, lints, unit tests, documentation tests, conformance, a few kills
  conformance [ARG..]  only the unmodified packages against an optimised build; arguments go to the runner
  simulate [SEEDS]     so many simulations of the control plane, 20000 unless told otherwise, beyond those of the tests
  torture [N [SEED]]   kills an engine N times under load, 200 unless told otherwise, and looks whether it has lost anything
  bench [ARG..]        the benchmarks of the store; arguments go to criterion
  fmt                  format all code
";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.filter(|argument| argument != "--").collect();
    match run(&command, &rest) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs one command; none if there is no such command or it takes no arguments.
fn run(command: &str, rest: &[String]) -> Option<Result<()>> {
    let with_repository = |task: fn(&Repository, &[String]) -> Result<()>| Repository::find().and_then(|it| task(&it, rest));
    match (command, rest) {
        ("test", []) => Some(with_repository(steps::test)),
        ("conformance", _) => Some(with_repository(steps::conformance)),
        ("simulate", [] | [_]) => Some(with_repository(steps::simulate)),
        ("torture", [] | [_] | [_, _]) => Some(with_repository(steps::torture)),
        ("bench", _) => Some(with_repository(steps::bench)),
        ("fmt", []) => Some(with_repository(steps::fmt)),
        _ => None,
    }
}
