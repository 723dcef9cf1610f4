//! `rivet-engine backup` and `rivet-engine restore`.

use std::io::Write;
use std::path::Path;

use store::{ReadOnly, restore_backup, verify_backup};

use super::{CommandError, Done, check, size};
use crate::clock::Clock;

/// Copies the store to a folder.
pub(super) fn back_up(data: &Path, folder: &Path, out: &mut dyn Write) -> Result<Done, CommandError> {
    let clock = Clock::system();
    let backup = ReadOnly::open(data)?.back_up(folder, clock.now())?;
    let seconds = clock.uptime() as f64 / 1000.0;
    writeln!(out, "Backed up {} rows, {}, to {} in {seconds:.1} s.", backup.rows, size(backup.bytes), folder.display())?;
    Ok(Done::Well)
}

/// Fills a data folder from a backup in which there is no damage.
pub(super) fn restore(folder: &Path, data: &Path, even_if_damaged: bool, out: &mut dyn Write) -> Result<Done, CommandError> {
    verify_backup(folder)?;
    let backup = ReadOnly::open(folder)?;
    let found = check::look(&backup)?;
    if !found.is_clean() {
        found.tell(out)?;
        if !even_if_damaged {
            return Err(CommandError::DamagedBackup);
        }
    }
    // Its map must not be open while the file is copied: both read it, and one is enough.
    drop(backup);
    let backup = restore_backup(folder, data)?;
    writeln!(out, "Restored {} rows, {}, to {}. The engine can be started.", backup.rows, size(backup.bytes), data.display())?;
    Ok(Done::Well)
}
