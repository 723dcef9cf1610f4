//! `rivet-engine`: the engine behind a command line.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use engine::Engine;
use engine::commands::{self, Done};
use engine::config::{
    Cli, Command, Config, ConfigError, DataTask, Durability, IneffectiveClass, Loaded, RemoteRequest, Sources, Start, load,
    read_sources,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Of each thread, in bytes. Twice what SQLite needs on the threads that execute statements.
const STACK_BYTES: usize = 2 * sqlite_vfs::STACK_BYTES;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match Cli::parse().into_command() {
        Ok(command) => command,
        Err(error) => return failed("cli.unknown_service", &error),
    };
    match command {
        Command::Start(start) => match load_config(&start) {
            Ok(loaded) => run(loaded),
            Err(error) => failed(error.code(), &error),
        },
        Command::Data { config_paths, task } => match load_config(&Start { config_paths, host: None }) {
            Ok(loaded) => work(&loaded.config, task),
            Err(error) => failed(error.code(), &error),
        },
        Command::Remote { config_paths, request } => match load_config(&Start { config_paths, host: None }) {
            Ok(loaded) => ask(&loaded.config, request),
            Err(error) => failed(error.code(), &error),
        },
        Command::ShowConfig { config_paths } => {
            let start = Start { config_paths, host: None };
            match load_config(&start) {
                Ok(loaded) => show(&loaded.config),
                Err(error) => failed(error.code(), &error),
            }
        }
    }
}

fn load_config(start: &Start) -> Result<Loaded, ConfigError> {
    load(&Sources { host: start.host, ..read_sources(&start.config_paths)? })
}

/// Says what is wrong in one line, with a stable name.
fn failed(code: &str, error: &dyn std::fmt::Display) -> ExitCode {
    // A closed stderr is no reason to panic.
    let _ = writeln!(std::io::stderr(), "Error: [{code}] {error}");
    ExitCode::FAILURE
}

fn show(config: &Config) -> ExitCode {
    match config.show() {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed("config.not_utf8", &error),
    }
}

fn work(config: &Config, task: DataTask) -> ExitCode {
    // A closed stdout is no reason to stop halfway.
    match commands::run(config, task, &mut std::io::stdout()) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Badly) => ExitCode::FAILURE,
        Err(error) => failed(&error.code(), &error),
    }
}

fn ask(config: &Config, request: RemoteRequest) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed("runtime.start", &error),
    };
    match runtime.block_on(commands::ask(config, request, &mut std::io::stdout())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.code(), &error),
    }
}

fn say(text: &str) {
    // Whoever closes stdout does not want to read it; the engine goes on.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run(loaded: Loaded) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        // A message about a message that cannot be written would panic, in whichever thread that happens to be: the log may be
        // on the same full disk.
        .log_internal_errors(false)
        .init();
    for unused in &loaded.ineffective {
        let (key, origin, reason) = (unused.key, &unused.origin, unused.reason);
        match unused.class {
            IneffectiveClass::NotYet => tracing::warn!(key, %origin, reason, "configured without effect"),
            IneffectiveClass::NoSuchMechanism => tracing::debug!(key, %origin, reason, "configured without effect"),
        }
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(worker_threads()).thread_stack_size(STACK_BYTES).enable_all();
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return failed("runtime.start", &error),
    };
    let served = runtime.block_on(serve(loaded.config));
    // What is still running belongs to requests whose time is up.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, error }) => failed(&code, &error),
    }
}

/// Half of the cores, at least one. On a small machine the engine shares them with the application's host, and one worker
/// spares the wake-ups between workers: measured on 2 cores, a third less processor time per request.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

struct Failure {
    code: String,
    error: anyhow::Error,
}

async fn serve(config: Config) -> Result<(), Failure> {
    let (data, durability) = (config.file_system.path.clone(), config.storage.durability);
    let has_token = config.auth.admin_token.is_some();
    let force_after = config.runtime.force_shutdown_duration.duration();
    let mut signals = Signals::listen().map_err(|error| Failure { code: "runtime.signal".into(), error })?;
    let started = tokio::select! {
        started = Engine::start(config) => started,
        () = signals.next() => return Ok(()),
    };
    let engine = started.map_err(|error| Failure { code: error.code(), error: anyhow::Error::new(error) })?;
    let address = engine.address();
    let reachable = reachable(address);
    say(&format!(
        "rivet-engine listens on http://{address}, keeps its data in {}; next: start your app with RIVET_ENDPOINT=http://{reachable}",
        data.display()
    ));
    if !address.ip().is_loopback() && !has_token {
        say("It accepts connections from other machines. Without auth.admin_token anybody who reaches it may manage it.");
    }
    match durability {
        Durability::Fsync => {}
        Durability::Os => say("storage.durability is \"os\": a power failure may lose what was acknowledged last."),
    }
    tokio::select! {
        () = signals.next() => {}
        error = engine.failed() => {
            // A thread may hang on the very disk that has failed.
            stop(engine.abandon(), force_after, &mut signals).await;
            let failure = anyhow::anyhow!("{error}; nothing is acknowledged any more, so the engine ends");
            return Err(Failure { code: format!("store.{}", error.code()), error: failure });
        }
    }
    say("rivet-engine stops: open requests finish first; a second signal ends them.");
    stop(engine.shutdown(), force_after, &mut signals).await;
    Ok(())
}

/// Waits for the end of an engine, but not for ever.
async fn stop(end: impl Future<Output = ()>, force_after: Duration, signals: &mut Signals) {
    tokio::select! {
        () = end => {}
        () = tokio::time::sleep(force_after) => tracing::warn!("forced shutdown"),
        // Somebody is impatient.
        () = signals.next() => {}
    }
}

/// An address that an app on this machine can use: "all interfaces" is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// The signals that ask the engine to stop. One that comes while nobody waits is kept.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        // Where the size of files is limited, this would end the process. Handled once, it leaves an error for whoever writes.
        let file_too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        drop(signal(file_too_large).context("SIGXFSZ cannot be handled")?);
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
