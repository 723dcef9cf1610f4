//! The steps of each command, with a heading and the time each took. The first failure ends it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    counts::Counts,
    rust_crate,
    tools::{self, Stream},
};

/// Has the simulator built with everything else, and so once.
const SIMULATION: &str = "testkit/simulation";
/// Topics of the conformance suite that take about as long as all others together, so that two runners share the time. Each has
/// ports of its own.
const SECOND_HALF: &str = "serverless,engine-restart,host-restart,upgrade,launch";
const FIRST_PORTS: &str = "20000-25999";
const SECOND_PORTS: &str = "26000-31999";
/// Far from the seeds of the tests.
const FIRST_SEED: &str = "1000000";
/// Kills of the crash suite in `test`, where there is time for no more, and by itself.
const FEW_KILLS: &str = "4";
const MANY_KILLS: &str = "200";

/// The conformance cases that need the application on the Rust crate.
const RUST_CRATE: &str = "rust-crate";

/// Where things are.
pub(crate) struct Repository {
    root: PathBuf,
    /// The directory cargo builds into.
    target: PathBuf,
}

impl Repository {
    pub(crate) fn find() -> Result<Self> {
        let own_package = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
        let root = Path::new(&own_package).parent().context("xtask has no parent directory")?.to_owned();
        // This program is `<target>/debug/xtask`, wherever cargo was told to build.
        let executable = env::current_exe()?;
        let target = executable.ancestors().nth(2).context("xtask was not built by cargo")?.to_owned();
        Ok(Self { root, target })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.root);
        command
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        self.command("cargo", arguments)
    }
}

fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n=== {title}");
    let started = Instant::now();
    let outcome = work().with_context(|| format!("step \"{title}\" failed"))?;
    println!("=== {title}: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(outcome)
}

/// Everything that must hold. The last line printed is the number of all tests.
pub(crate) fn test(repository: &Repository, _: &[String]) -> Result<()> {
    step("tools", tools::provide_programs)?;
    let rust_crate = rust_crate::Build::begin(&repository.root, &repository.target)?;
    step("format", || {
        tools::run(&mut repository.cargo(&["fmt", "--all", "--check"]))?;
        tools::run(&mut repository.cargo(&["fmt", "--manifest-path", rust_crate::MANIFEST, "--check"]))
    })?;
    step("lints", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--features", SIMULATION, "--", "-D", "warnings"];
        tools::run(&mut repository.cargo(&arguments))?;
        // As it is shipped, some of it is not there.
        tools::run(&mut repository.cargo(&["clippy", "--package", "engine", "--", "-D", "warnings"]))
    })?;
    let mut counts = step("unit tests", || unit_tests(repository))?;
    counts.add(step("documentation tests", || {
        let arguments = ["test", "--doc", "--workspace", "--features", SIMULATION, "--color", "never"];
        tools::run_tests(&mut repository.cargo(&arguments), Stream::Stdout)
    })?);
    step("dependencies", || check_dependencies(repository))?;
    counts.add(run_conformance(repository, &[], Some(rust_crate))?);
    run_torture(repository, FEW_KILLS, None)?;
    println!("\n{} passed, {} failed", counts.passed, counts.failed);
    Ok(())
}

fn unit_tests(repository: &Repository) -> Result<Counts> {
    let counts = if tools::works("cargo", &["nextest", "--version"]) {
        let arguments = ["nextest", "run", "--workspace", "--features", SIMULATION, "--no-tests", "pass", "--color", "never"];
        tools::run_tests(&mut repository.cargo(&arguments), Stream::Stderr)?
    } else {
        println!("cargo-nextest is not installed: using cargo test");
        let arguments = ["test", "--workspace", "--features", SIMULATION, "--lib", "--bins", "--tests", "--color", "never"];
        tools::run_tests(&mut repository.cargo(&arguments), Stream::Stdout)?
    };
    if counts.passed == 0 {
        bail!("no test was counted");
    }
    Ok(counts)
}

fn check_dependencies(repository: &Repository) -> Result<()> {
    if !tools::works("cargo", &["deny", "--version"]) {
        println!("cargo-deny is not installed: licences, bans and advisories were NOT checked");
        return Ok(());
    }
    tools::run(&mut repository.cargo(&["deny", "check"]))
}

/// Only the conformance suite.
pub(crate) fn conformance(repository: &Repository, arguments: &[String]) -> Result<()> {
    step("tools", tools::provide_programs)?;
    let needs_rust_crate = option(arguments, "--only").is_none_or(|only| only.starts_with(RUST_CRATE));
    let is_given = option(arguments, "--rust-ledger").is_some();
    let rust_crate = (needs_rust_crate && !is_given).then(|| rust_crate::Build::begin(&repository.root, &repository.target));
    run_conformance(repository, arguments, rust_crate.transpose()?)?;
    Ok(())
}

/// The value of an option.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).map(String::as_str)
}

/// Runs the unmodified packages against our optimised build, or against the engine that the arguments name; and through the
/// proxy of `testkit`. The cases that wait for a build come last.
fn run_conformance(repository: &Repository, arguments: &[String], rust_crate: Option<rust_crate::Build>) -> Result<Counts> {
    let mut options = Vec::new();
    if option(arguments, "--engine").is_none() {
        options.extend(["--engine".into(), optimised_engine(repository)?.into_os_string()]);
    }
    if option(arguments, "--proxy").is_none() {
        test_programs(repository)?;
        options.extend(["--proxy".into(), repository.target.join("debug/faulty-proxy").into_os_string()]);
    }
    npm_packages(repository)?;
    let runner = |more: &[&str]| {
        let mut runner = repository.command("node", &["conformance/run.mjs"]);
        runner.args(&options).args(arguments).args(more);
        runner
    };
    let Some(build) = rust_crate else {
        return step("conformance", || tools::run_tests(&mut runner(&[]), Stream::Stdout));
    };
    let mut counts = Counts::default();
    let everything = option(arguments, "--only").is_none();
    if everything {
        let rest = format!("{SECOND_HALF},{RUST_CRATE}");
        let mut first = runner(&["--except", &rest, "--ports", FIRST_PORTS]);
        let mut second = runner(&["--only", SECOND_HALF, "--ports", SECOND_PORTS]);
        counts.add(step("conformance", || side_by_side(&mut first, &mut second))?);
    }
    let program = step("Rust crate: rest of the build", || build.finish())?;
    let mut last = runner(if everything { &["--only", RUST_CRATE] } else { &[] });
    last.arg("--rust-ledger").arg(program);
    counts.add(step("conformance of the Rust crate", || tools::run_tests(&mut last, Stream::Stdout))?);
    Ok(counts)
}

/// Two runners of cases at the same time: they mostly wait.
fn side_by_side(first: &mut Command, second: &mut Command) -> Result<Counts> {
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| tools::run_tests_aside(second));
        (tools::run_tests(first, Stream::Stdout), second.join())
    });
    let mut counts = first?;
    match second {
        Ok(second) => counts.add(second?),
        Err(_) => bail!("the second runner panicked"),
    }
    Ok(counts)
}

/// The engine that the suites run which see it as users do.
fn optimised_engine(repository: &Repository) -> Result<PathBuf> {
    let arguments = ["build", "--profile", "conformance", "--package", "engine"];
    step("optimised build", || tools::run(&mut repository.cargo(&arguments)))?;
    Ok(repository.target.join("conformance/rivet-engine"))
}

/// The faulty proxy and the crash suite. Together, for the whole workspace and with its features: so they share what the unit tests
/// have built, with the features that development dependencies bring along.
fn test_programs(repository: &Repository) -> Result<()> {
    let build = ["build", "--workspace", "--features", SIMULATION, "--bin", "faulty-proxy", "--example", "torture"];
    step("proxy and crash suite: build", || tools::run(&mut repository.cargo(&build)))
}

fn npm_packages(repository: &Repository) -> Result<()> {
    step("npm packages", || {
        let mut npm = repository.command("npm", &["ci", "--no-audit", "--no-fund"]);
        npm.current_dir(repository.root.join("conformance"));
        if !tools::has_home() {
            npm.env("npm_config_cache", repository.target.join("npm-cache"));
        }
        tools::run(&mut npm)
    })
}

/// Kills an optimised engine again and again under the load of real applications and of scripted hosts.
pub(crate) fn torture(repository: &Repository, arguments: &[String]) -> Result<()> {
    let kills = arguments.first().map_or(MANY_KILLS, String::as_str);
    for number in arguments {
        number.parse::<u64>().context("kills and seed are numbers")?;
    }
    npm_packages(repository)?;
    run_torture(repository, kills, arguments.get(1).map(String::as_str))
}

/// Expects the npm packages to be there.
fn run_torture(repository: &Repository, kills: &str, seed: Option<&str>) -> Result<()> {
    let engine = optimised_engine(repository)?;
    test_programs(repository)?;
    let suite = || {
        let mut suite = Command::new(repository.target.join("debug/examples/torture"));
        suite.arg(&engine).current_dir(&repository.root);
        suite
    };
    step("crash suite: an engine that forgets is found out", || tools::run(suite().arg("--forget")))?;
    let mut kill = suite();
    kill.args(["--kills", kills, "--sdk", "conformance"]).args(seed.iter().flat_map(|seed| ["--seed", seed]));
    step(&format!("crash suite: {kills} kills"), || tools::run(&mut kill))
}

/// Simulations with seeds that the tests do not have.
pub(crate) fn simulate(repository: &Repository, arguments: &[String]) -> Result<()> {
    let count = arguments.first().map_or("20000", String::as_str);
    count.parse::<u64>().context("the number of simulations is a number")?;
    let run = ["run", "--profile", "conformance", "--package", "testkit", "--features", "simulation", "--example", "simulate"];
    step("simulations", || tools::run(repository.cargo(&run).args(["--", FIRST_SEED, count])))
}

/// The benchmarks of the store.
pub(crate) fn bench(repository: &Repository, arguments: &[String]) -> Result<()> {
    step("store benchmarks", || tools::run(repository.cargo(&["bench", "--package", "store", "--"]).args(arguments)))
}

/// Formats all code.
pub(crate) fn fmt(repository: &Repository, _: &[String]) -> Result<()> {
    tools::run(&mut repository.cargo(&["fmt", "--all"]))?;
    tools::run(&mut repository.cargo(&["fmt", "--manifest-path", rust_crate::MANIFEST]))
}
