//! The conformance application on the published Rust crate, built beside the other steps: rustc spends minutes on one core with
//! the crate, and the other steps leave more idle time than that.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The application, in the repository.
pub(crate) const MANIFEST: &str = "conformance/apps/rust-ledger/Cargo.toml";

/// A build that is going on. It ends with this value.
pub(crate) struct Build {
    child: Child,
    log: PathBuf,
    program: PathBuf,
}

impl Build {
    /// Begins to build the application of `root` into a folder of its own in `target`, with whatever time other processes
    /// leave it.
    pub(crate) fn begin(root: &Path, target: &Path) -> Result<Self> {
        let target = target.join("rust-ledger");
        fs::create_dir_all(&target)?;
        let log = target.join("build.log");
        let output = File::create(&log)?;
        let child = Command::new("nice")
            .args(["-n", "19", "cargo", "build", "--locked", "--color", "never", "--manifest-path"])
            .arg(root.join(MANIFEST))
            .arg("--target-dir")
            .arg(&target)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot run nice")?;
        Ok(Self { child, log, program: target.join("debug/rust-ledger") })
    }

    /// Waits for the end of the build; the program.
    pub(crate) fn finish(mut self) -> Result<PathBuf> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the build ended with {status}:\n{}", fs::read_to_string(&self.log)?);
        }
        Ok(self.program.clone())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // Both fail when it has ended, and then nothing is left to do. What rustc is at, it may finish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
