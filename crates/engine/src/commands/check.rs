//! `rivet-engine check`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use actor_data::check::Finding;
use serde_json::{Value, json};
use store::{ReadOnly, StoreError};

use super::{CommandError, Done, size};
use crate::records;

/// Findings that are told one by one; of more only the number is told. Bounds the memory that a check needs.
const MAX_TOLD: usize = 1_000;

/// What a check has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    actors: u64,
    rows: u64,
    bytes: u64,
    pages: u64,
    kv_entries: u64,
    findings: Vec<Finding>,
    /// Also those that are not told one by one.
    findings_total: u64,
}

/// Checks a data folder or a backup.
pub(super) fn run(folder: &Path, json: bool, out: &mut dyn Write) -> Result<Done, CommandError> {
    let found = look(&ReadOnly::open(folder)?)?;
    if json {
        writeln!(out, "{:#}", found.to_json())?;
    } else {
        found.tell(out)?;
    }
    Ok(if found.is_clean() { Done::Well } else { Done::Badly })
}

/// The same in a process of its own. LMDB believes what its pages say of each other; where they are damaged, reading them may
/// end a process.
pub(super) fn run_apart(folder: &Path, json: bool, out: &mut dyn Write) -> Result<Done, CommandError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["check", "--here"]).args(json.then_some("--json")).arg("--").arg(folder);
    let ended = command.status()?;
    // It has said everything itself.
    match ended.code() {
        Some(0) => return Ok(Done::Well),
        Some(_) => return Ok(Done::Badly),
        None => {}
    }
    let mut found = Found::default();
    let message = format!("its file cannot be read ({ended}): the database itself is damaged");
    found.add(Finding { code: "store.unreadable", actor: None, key: Vec::new(), message });
    if json {
        writeln!(out, "{:#}", found.to_json())?
    } else {
        found.tell(out)?
    }
    Ok(Done::Badly)
}

/// Looks at every row of one state of the store.
pub(super) fn look(store: &ReadOnly) -> Result<Found, StoreError> {
    store.snapshot(|explorer| {
        let mut found = Found::default();
        let records = records::check::check(explorer, &mut |finding| found.add(finding))?;
        let mut owner = |id: &protocol::id::Id| records::check::owner(explorer, id);
        let data = actor_data::check::check(explorer, &mut owner, &mut |finding| found.add(finding))?;
        found.actors = records.actors;
        found.rows = records.rows + data.rows;
        found.bytes = records.bytes + data.bytes;
        (found.pages, found.kv_entries) = (data.pages, data.kv_entries);
        Ok(found)
    })?
}

impl Found {
    fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < MAX_TOLD {
            self.findings.push(finding);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    /// Tells people.
    pub(super) fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        for finding in &self.findings {
            let of = finding.actor.map_or_else(|| "store".to_owned(), |actor| format!("actor {actor}"));
            write!(out, "{of}: {} [{}", finding.message, finding.code)?;
            if !finding.key.is_empty() {
                write!(out, ", row {}", hex(&finding.key))?;
            }
            writeln!(out, "]")?;
        }
        let untold = self.findings_total - self.findings.len() as u64;
        if untold > 0 {
            writeln!(out, "... and {untold} more.")?;
        }
        let Self { rows, actors, bytes, .. } = self;
        let verdict = match self.findings_total {
            0 => "no damage".to_owned(),
            1 => "1 fault".to_owned(),
            faults => format!("{faults} faults"),
        };
        writeln!(out, "Looked at {rows} rows of {actors} actors, {}: {verdict}.", size(*bytes))
    }

    /// Tells programs.
    fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "code": finding.code,
                "actor": finding.actor.map(|actor| actor.to_string()),
                "key": hex(&finding.key),
                "message": finding.message,
            })
        };
        json!({
            "damaged": !self.is_clean(),
            "actors": self.actors,
            "rows": self.rows,
            "bytes": self.bytes,
            "pages": self.pages,
            "kv_entries": self.kv_entries,
            "findings_total": self.findings_total,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

/// The bytes of a key, two digits each.
fn hex(key: &[u8]) -> String {
    key.iter().fold(String::with_capacity(2 * key.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_counted_and_told_up_to_a_bound() {
        let mut found = Found::default();
        for number in 0..MAX_TOLD + 2 {
            let message = format!("fault {number}");
            found.add(Finding { code: "row.damaged", actor: None, key: vec![0x42, 0x00, 0xff], message });
        }
        let mut text = Vec::new();
        found.tell(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("store: fault 0 [row.damaged, row 4200ff]\n"), "{text}");
        assert!(text.ends_with("... and 2 more.\nLooked at 0 rows of 0 actors, 0 bytes: 1002 faults.\n"), "{text}");
        let json = found.to_json();
        assert_eq!((&json["findings_total"], json["findings"].as_array().unwrap().len()), (&json!(1002), MAX_TOLD));
    }
}
