//! Kills an engine again and again while it is written to, and compares what it then has with what it has said:
//!
//!     cargo run -p testkit --example torture -- PATH/TO/rivet-engine [--kills N] [--seed N] [--sdk PATH/TO/conformance]
//!     cargo run -p testkit --example torture -- PATH/TO/rivet-engine --forget
//!
//! What was acknowledged is there, what was refused is not, and of what got no answer each write is there wholly or not at
//! all. Hosts that speak the protocol themselves write pairs and pages and have SQL executed; with `--sdk` real applications on
//! the npm package write, too. The past of all databases is kept, and actors are put back to it.
//!
//! The engine is killed with SIGKILL, so this proves nothing about a loss of power: pages that the system has and the disk has
//! not survive it.
//!
//! With `--forget` the data are put back to an earlier state before the last start: then the suite passes if it finds out.
//!
//! The seed makes the sequence of writes and of pauses, not their interleaving. What breaks a rule is printed with the last
//! writes before it, and the folder with the data and the logs is kept.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed run")]
#![allow(clippy::print_stdout, reason = "the result is the point")]

mod churn;
mod database;
mod export;
mod host;
mod kv;
mod ledger;
mod pages;
mod past;
mod scene;
mod sdk;
mod sql;
mod writer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rand::RngExt;

use ledger::{Checked, Violation};
use scene::Scene;

const USAGE: &str = "usage: torture PATH/TO/rivet-engine [--kills N] [--seed N] [--sdk PATH/TO/conformance] [--forget]";
const KILLS: u32 = 20;
/// Between two lines that say how far it is.
const TOLD_EVERY: u32 = 20;
/// How long is written what is then forgotten: long enough for something to be acknowledged.
const FORGOTTEN: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Options {
    engine: PathBuf,
    kills: u32,
    seed: u64,
    conformance: Option<PathBuf>,
    forget: bool,
}

fn options() -> Option<Options> {
    let mut arguments = std::env::args().skip(1);
    let engine = std::path::absolute(arguments.next()?).ok()?;
    let seed = rand::rng().random_range(0..1_000_000);
    let mut options = Options { engine, kills: KILLS, seed, conformance: None, forget: false };
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--kills" => options.kills = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--sdk" => options.conformance = Some(std::path::absolute(arguments.next()?).ok()?),
            "--forget" => options.forget = true,
            _ => return None,
        }
    }
    Some(options)
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("seed {}", options.seed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    // In a task of its own, so that a failed expectation, too, leaves the folder behind.
    let outcome = tokio::spawn(torture(options.clone(), folder.path().to_owned())).await;
    let violation = match outcome {
        Ok(Err(Violation(what))) if options.forget => {
            println!("found out, as it must be: {}", what.lines().next().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Ok(Ok(())) if options.forget => "the engine has forgotten, and nobody has noticed".to_owned(),
        Ok(Ok(())) => {
            println!("nothing acknowledged is missing, nothing refused is there, nothing is torn");
            return ExitCode::SUCCESS;
        }
        Ok(Err(Violation(what))) => what,
        Err(panicked) => format!("a failed expectation: {panicked}"),
    };
    println!("VIOLATION with seed {}, data and logs in {}\n{violation}", options.seed, folder.keep().display());
    ExitCode::FAILURE
}

async fn torture(options: Options, folder: PathBuf) -> Checked {
    let mut scene = Scene::start(&options.engine, &folder, options.seed, options.conformance.as_deref()).await;
    let outcome = match options.forget {
        true => forget(&mut scene).await,
        false => run(&mut scene, options.kills).await,
    };
    println!("{}", scene.figures());
    scene.end().await;
    outcome
}

async fn run(scene: &mut Scene, kills: u32) -> Checked {
    scene.audit().await?;
    for kill in 1..=kills {
        scene.load_and_kill().await?;
        scene.start_again().await?;
        scene.audit().await?;
        if kill.is_multiple_of(TOLD_EVERY) && kill < kills {
            println!("{}", scene.figures());
        }
    }
    Ok(())
}

/// Has the engine lose a round of what it has acknowledged. The violation is that of the last audit, or none.
async fn forget(scene: &mut Scene) -> Checked {
    scene.stop_moving();
    scene.audit().await.expect("a new engine has lost nothing");
    scene.load_and_kill_after(FORGOTTEN).await.expect("nothing is lost before the kill");
    scene.remember_and_start_again().await;
    scene.audit().await.expect("nothing is lost by a kill");
    scene.load_and_kill_after(FORGOTTEN).await.expect("nothing is lost before the kill");
    scene.forget_and_start_again().await;
    scene.audit().await
}
