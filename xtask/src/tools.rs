//! Running other programs, and having those that are needed.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::counts::{self, Counts};

/// Where a test runner prints its result line.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Whether `program` can be run with `arguments`, usually a question for its version.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs a program to its end; anything but exit code 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {}", name(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// As [`run`], and counts the tests in what it prints to `stream`, which is passed on line by line.
pub(crate) fn run_tests(command: &mut Command, stream: Stream) -> Result<Counts> {
    match stream {
        Stream::Stdout => run_tests_into(command, stream, io::stdout()),
        Stream::Stderr => run_tests_into(command, stream, io::stderr()),
    }
}

/// As [`run_tests`], for two at the same time: what this one prints comes when it has ended.
pub(crate) fn run_tests_aside(command: &mut Command) -> Result<Counts> {
    let mut printed = Vec::new();
    let counts = run_tests_into(command, Stream::Stdout, &mut printed);
    io::stdout().write_all(&printed)?;
    counts
}

fn run_tests_into(command: &mut Command, stream: Stream, to: impl Write) -> Result<Counts> {
    match stream {
        Stream::Stdout => command.stdout(Stdio::piped()),
        Stream::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", name(command)))?;
    let counted = match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), _) => count(stdout, to),
        (None, Some(stderr)) => count(stderr, to),
        (None, None) => bail!("{} was started without a pipe", name(command)),
    };
    let status = child.wait()?;
    let counts = counted?;
    if !status.success() || counts.failed > 0 {
        bail!("{} ended with {status}, {} passed, {} failed", name(command), counts.passed, counts.failed);
    }
    Ok(counts)
}

fn count(from: impl Read, mut to: impl Write) -> Result<Counts> {
    let mut reader = BufReader::new(from);
    let mut counts = Counts::default();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(result) = counts::in_line(&String::from_utf8_lossy(&line)) {
            counts.add(result);
        }
        line.clear();
    }
    Ok(counts)
}

fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

/// Oldest major version of Node.js that the conformance suite runs on.
const NODE_MAJOR: u32 = 20;

/// What the conformance suite runs: names of the program, any of which will do, and the Debian package that brings it.
const PROGRAMS: [(&[&str], &str); 4] = [
    (&["node"], "nodejs"),
    (&["npm"], "npm"),
    (&["curl"], "curl"),
    (&["chromium", "chromium-browser", "google-chrome"], "chromium"),
];

/// Makes sure of the programs that the conformance suite runs; installs the system's packages of those that are missing, if
/// we may.
pub(crate) fn provide_programs() -> Result<()> {
    let is_missing = |names: &[&str]| !names.iter().any(|name| works(name, &["--version"]));
    let missing: Vec<&str> = PROGRAMS.iter().filter(|(names, _)| is_missing(names)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let version = stdout_of("node", &["--version"])?;
    let major: u32 = version.trim_start_matches('v').split('.').next().unwrap_or_default().parse()?;
    if major < NODE_MAJOR {
        bail!("Node.js {NODE_MAJOR} or newer is needed, found {version}");
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    let wanted = packages.join(", ");
    let is_root = stdout_of("id", &["-u"]).is_ok_and(|id| id == "0");
    if !is_root || !works("apt-get", &["--version"]) {
        bail!("missing: {wanted} (Node.js {NODE_MAJOR} or newer); install them, then run this again");
    }
    println!("installing the system's packages of what is missing: {wanted}");
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    run(Command::new("apt-get").args(install).args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn stdout_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether there is a home directory for npm to keep its cache in.
pub(crate) fn has_home() -> bool {
    env::var_os("HOME").is_some_and(|home| !home.is_empty())
}
