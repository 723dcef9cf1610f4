//! What the operating system says of this process. Only Linux is asked; elsewhere these families are missing.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::families::Families;

/// Bytes in the unit of `/proc/self/status`.
const STATUS_UNIT_BYTES: u64 = 1024;

/// Families with the names that all exporters use for them.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        if let Some(bytes) = resident_bytes() {
            families.value("process_resident_memory_bytes", "Memory that the process has in use", bytes)?;
        }
        if let Some(open) = open_files() {
            families.value("process_open_fds", "Open files and sockets", open)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|units| units * STATUS_UNIT_BYTES)
}

fn open_files() -> Option<u64> {
    // One of them is the list itself.
    std::fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1))
}
