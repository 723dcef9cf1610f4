//! Walking over everything that actors own, in search of damage.
//!
//! Each row is looked at once, and those of one actor together: the kinds of rows are read side by side, each in the order of
//! the actors' ids. So the walk needs memory for one row of each kind, however large the store is.

use protocol::id::Id;
use store::{Explorer, StoreError};

use crate::fence::{self, Fence};
use crate::kv::check::KvCheck;
use crate::ledger::{Ledger, RESTORE_STAGE, Stage};
use crate::record::{self, PREFIX_BYTES, Subspace};
use crate::sqlite::history;
use crate::{Bytes, Damaged, page, segment};

#[cfg(test)]
mod tests;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, for programs: `row.damaged`, for example.
    pub code: &'static str,
    /// The actor that it concerns, if that is known.
    pub actor: Option<Id>,
    /// Key of the row that it concerns, if it is one.
    pub key: Vec<u8>,
    /// What, for people, without saying again which actor.
    pub message: String,
}

/// What the owner of an id is, from outside of this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// An actor, perhaps a destroyed one.
    Actor,
    /// An actor that never started, so that no generation may use its data yet.
    Unstarted,
    /// No actor, but it is noted that the data is to be removed.
    Remains,
    /// Nobody.
    Nobody,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Actors that own something.
    pub actors: u64,
    /// Rows, of every kind.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Pages of databases among them.
    pub pages: u64,
    /// Key-value entries among them.
    pub kv_entries: u64,
}

/// Where findings go.
pub type Report<'a> = dyn FnMut(Finding) + 'a;

/// Who may use an actor's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// This generation.
    Generation(u64),
    /// Nobody any more.
    Destroyed,
    /// Nobody: no generation has been started, or all data is removed.
    Nobody,
    /// It cannot be read, which [`check`] finds, too.
    Damaged,
}

/// Who may use an actor's data.
///
/// # Errors
/// If the store cannot be read.
pub fn fenced(explorer: &Explorer<'_>, actor: &Id) -> Result<Fenced, StoreError> {
    let Some(row) = explorer.get(&fence::key(actor))? else { return Ok(Fenced::Nobody) };
    Ok(match Fence::decode(actor, row) {
        Ok(Fence::Generation { number, .. }) => Fenced::Generation(number),
        Ok(Fence::Destroyed) => Fenced::Destroyed,
        Err(Damaged { .. }) => Fenced::Damaged,
    })
}

/// Code of the finding that rows are not in the order of their keys.
pub const OUT_OF_ORDER: &str = "store.out_of_order";

/// First bytes of the keys of this room, and the one behind the last.
pub const KINDS: std::ops::Range<u8> = 0x40..0x60;

/// The kinds of rows, as they are looked at: what others are compared with comes first.
const WALK: [Subspace; 9] = [
    Subspace::Fence,
    Subspace::Ledger,
    Subspace::Page,
    Subspace::StagedPage,
    Subspace::Segment,
    Subspace::KvEntry,
    Subspace::KvBucket,
    Subspace::HistoryCommit,
    Subspace::HistoryPage,
];

/// Looks at every row of this room in one snapshot.
///
/// # Errors
/// If the store cannot be read; then not everything was looked at.
pub fn check(
    explorer: &Explorer<'_>,
    owner: &mut dyn FnMut(&Id) -> Result<Owner, StoreError>,
    report: &mut Report<'_>,
) -> Result<Seen, StoreError> {
    let mut walk = Walk { explorer, report, seen: Seen::default() };
    walk.unknown_kinds()?;
    let mut streams = Vec::new();
    for subspace in WALK {
        streams.push(walk.stream(subspace)?);
    }
    while let Some(actor) = streams.iter().filter_map(Stream::actor).min() {
        walk.seen.actors += 1;
        let owner = owner(&actor)?;
        walk.actor(&actor, owner, &mut streams)?;
    }
    Ok(walk.seen)
}

type Row<'a> = (&'a [u8], &'a [u8]);

/// The rows of one kind.
struct Stream<'a> {
    rows: Box<dyn Iterator<Item = Result<Row<'a>, StoreError>> + 'a>,
    /// The next one, whose key is long enough.
    head: Option<Row<'a>>,
    /// Key of the newest one: a damaged file may lead in circles.
    last: Option<&'a [u8]>,
}

impl Stream<'_> {
    fn actor(&self) -> Option<Id> {
        let (key, _) = self.head?;
        actor_of(key)
    }
}

fn actor_of(key: &[u8]) -> Option<Id> {
    Some(Id::from_bytes(key.get(1..PREFIX_BYTES)?.try_into().ok()?))
}

struct Walk<'w, 'a> {
    explorer: &'w Explorer<'a>,
    report: &'w mut Report<'w>,
    seen: Seen,
}

/// What is known of an actor while its rows are looked at.
struct Account<'i> {
    actor: &'i Id,
    /// None if it is damaged, or does not count any more because the actor is destroyed: then nothing is compared with it.
    ledger: Option<Ledger>,
}

impl<'a> Walk<'_, 'a> {
    fn stream(&mut self, subspace: Subspace) -> Result<Stream<'a>, StoreError> {
        let rows = self.explorer.range(&[subspace as u8], &[subspace as u8 + 1])?;
        let mut stream = Stream { rows, head: None, last: None };
        self.advance(&mut stream)?;
        Ok(stream)
    }

    fn advance(&mut self, stream: &mut Stream<'a>) -> Result<(), StoreError> {
        stream.head = None;
        while let Some((key, value)) = stream.rows.next().transpose()? {
            if stream.last.is_some_and(|last| key <= last) {
                self.find(None, OUT_OF_ORDER, key, "rows are not in order: the file is damaged, and the walk ends here".into());
                stream.rows = Box::new(std::iter::empty());
                break;
            }
            stream.last = Some(key);
            self.seen.rows += 1;
            self.seen.bytes += (key.len() + value.len()) as u64;
            if actor_of(key).is_some() {
                stream.head = Some((key, value));
                break;
            }
            self.find(None, "row.malformed", key, "a row has a key that is too short".into());
        }
        Ok(())
    }

    /// The next row of an actor.
    fn next_of(&mut self, stream: &mut Stream<'a>, actor: &Id) -> Result<Option<Row<'a>>, StoreError> {
        if stream.actor() != Some(*actor) {
            return Ok(None);
        }
        let row = stream.head;
        self.advance(stream)?;
        Ok(row)
    }

    fn find(&mut self, actor: Option<&Id>, code: &'static str, key: &[u8], message: String) {
        (self.report)(Finding { code, actor: actor.copied(), key: key.to_vec(), message });
    }

    fn damaged(&mut self, actor: &Id, key: &[u8], damaged: Damaged, which: &str) {
        let message = format!("a {} row is damaged{which}", damaged.record);
        self.find(Some(actor), "row.damaged", key, message);
    }

    /// Rows of kinds that this version does not know.
    fn unknown_kinds(&mut self) -> Result<(), StoreError> {
        for kind in KINDS.filter(|kind| !WALK.iter().any(|known| *known as u8 == *kind)) {
            if let Some((key, _)) = self.explorer.range(&[kind], &[kind + 1])?.next().transpose()? {
                self.find(
                    actor_of(key).as_ref(),
                    "row.unknown_kind",
                    key,
                    format!("there are rows of the unknown kind {kind:#04x}"),
                );
            }
        }
        Ok(())
    }

    /// Looks at everything of one actor.
    fn actor(&mut self, actor: &Id, owner: Owner, streams: &mut [Stream<'a>]) -> Result<(), StoreError> {
        let [fences, ledgers, pages, staged, segments, entries, buckets, commits, notes] = streams else { return Ok(()) };
        let destroyed = self.fence(actor, owner, fences)?;
        let mut account = self.ledger(actor, ledgers)?;
        if destroyed {
            // Its rows go one after the other.
            account.ledger = None;
        }
        self.pages(&account, pages)?;
        self.stages(&account, staged, segments)?;
        self.entries(&account, entries, buckets)?;
        self.history(&account, [commits, notes])
    }

    /// Whether the actor is destroyed, or there is no fence.
    fn fence(&mut self, actor: &Id, owner: Owner, fences: &mut Stream<'a>) -> Result<bool, StoreError> {
        let Some((key, value)) = self.next_of(fences, actor)? else {
            if matches!(owner, Owner::Actor | Owner::Nobody) {
                self.find(Some(actor), "fence.missing", &[], "it has data, but no generation that may use it".into());
            }
            return Ok(owner != Owner::Unstarted);
        };
        self.surplus(actor, fences, "fence")?;
        if owner == Owner::Nobody {
            self.find(Some(actor), "fence.without_actor", key, "it has data, but there is no such actor".into());
        }
        match Fence::decode(actor, value) {
            Ok(fence) => Ok(fence == Fence::Destroyed),
            Err(damaged) => {
                self.damaged(actor, key, damaged, "");
                Ok(false)
            }
        }
    }

    fn ledger<'i>(&mut self, actor: &'i Id, ledgers: &mut Stream<'a>) -> Result<Account<'i>, StoreError> {
        let Some((key, value)) = self.next_of(ledgers, actor)? else {
            return Ok(Account { actor, ledger: Some(Ledger::default()) });
        };
        self.surplus(actor, ledgers, "ledger")?;
        let ledger = match Ledger::decode(actor, value) {
            Ok(ledger) if ledger.high_water < ledger.size => {
                let message = format!("its ledger says {} pages, and none above number {}", ledger.size, ledger.high_water);
                self.find(Some(actor), "ledger.high_water", key, message);
                None
            }
            Ok(ledger) => Some(ledger),
            Err(damaged) => {
                self.damaged(actor, key, damaged, "");
                None
            }
        };
        Ok(Account { actor, ledger })
    }

    /// There is one fence and one ledger; rows whose key goes on are none.
    fn surplus(&mut self, actor: &Id, stream: &mut Stream<'a>, kind: &str) -> Result<(), StoreError> {
        while let Some((key, _)) = self.next_of(stream, actor)? {
            self.find(Some(actor), "row.malformed", key, format!("a {kind} row has a key that is too long"));
        }
        Ok(())
    }

    fn pages(&mut self, account: &Account<'_>, pages: &mut Stream<'a>) -> Result<(), StoreError> {
        let actor = account.actor;
        while let Some((key, value)) = self.next_of(pages, actor)? {
            self.seen.pages += 1;
            let Some(pgno) = number_after::<4>(key, PREFIX_BYTES).map(u32::from_be_bytes) else {
                self.find(Some(actor), "row.malformed", key, "a page row has a key of the wrong length".into());
                continue;
            };
            if let Err(damaged) = page::decode(key, &Bytes::copy_from_slice(value)) {
                self.damaged(actor, key, damaged, &format!(": page {pgno}"));
            }
            let beyond = account.ledger.as_ref().is_some_and(|ledger| pgno > ledger.high_water);
            if pgno == 0 || beyond {
                self.find(Some(actor), "page.beyond_end", key, format!("page {pgno} lies outside of its database"));
            }
        }
        Ok(())
    }

    fn stages(&mut self, account: &Account<'_>, staged: &mut Stream<'a>, segments: &mut Stream<'a>) -> Result<(), StoreError> {
        let actor = account.actor;
        let (mut open_pages, mut open_segments) = (0, 0);
        let is_open = |stage: u64| {
            let ledger = account.ledger.as_ref();
            u64::from(ledger.is_some_and(|ledger| matches!(ledger.stage, Stage::Open(_)) && ledger.stages == stage))
        };
        while let Some((key, value)) = self.next_of(staged, actor)? {
            let Some((stage, pgno)) = staged_key(key) else {
                self.find(Some(actor), "row.malformed", key, "a staged page has a key of the wrong length".into());
                continue;
            };
            if let Err(damaged) = page::decode(key, &Bytes::copy_from_slice(value)) {
                self.damaged(actor, key, damaged, &format!(": page {pgno} of staged commit {stage}"));
            }
            self.stage_is_known(account, key, stage);
            open_pages += is_open(stage);
        }
        while let Some((key, value)) = self.next_of(segments, actor)? {
            let Some((stage, _)) = staged_key(key) else {
                self.find(Some(actor), "row.malformed", key, "a segment has a key of the wrong length".into());
                continue;
            };
            if let Err(damaged) = segment::decode(key, value) {
                self.damaged(actor, key, damaged, "");
            }
            self.stage_is_known(account, key, stage);
            open_segments += is_open(stage);
        }
        let Some(Ledger { stage: Stage::Open(open), .. }) = &account.ledger else { return Ok(()) };
        if (u64::from(open.pages), u64::from(open.segments)) != (open_pages, open_segments) {
            let message = format!(
                "its open staged commit should have {} pages in {} segments, and has {open_pages} in {open_segments}",
                open.pages, open.segments
            );
            self.find(Some(actor), "ledger.stage", &[], message);
        }
        Ok(())
    }

    /// Rows of a staged commit may be there if the ledger knows of it, or that some are left.
    fn stage_is_known(&mut self, account: &Account<'_>, key: &[u8], stage: u64) {
        let Some(ledger) = &account.ledger else { return };
        let known = match ledger.stage {
            Stage::None => ledger.leftovers && stage <= ledger.stages,
            Stage::Open(_) => stage == ledger.stages || (ledger.leftovers && stage < ledger.stages),
            Stage::Published { number, .. } => stage == number || (ledger.leftovers && stage <= ledger.stages),
        };
        let of_restore = stage == RESTORE_STAGE && ledger.restore_rows;
        if !known && !of_restore {
            let message = format!("there are rows of staged commit {stage}, of which its ledger knows nothing");
            self.find(Some(account.actor), "stage.unknown", key, message);
        }
    }

    fn entries(&mut self, account: &Account<'_>, entries: &mut Stream<'a>, buckets: &mut Stream<'a>) -> Result<(), StoreError> {
        let actor = account.actor;
        let mut kv = KvCheck::default();
        while let Some((key, value)) = self.next_of(entries, actor)? {
            if let Err(fault) = kv.row(self.explorer, actor, key, value)? {
                self.find(Some(actor), fault.code, key, fault.message);
            }
        }
        while let Some((key, value)) = self.next_of(buckets, actor)? {
            if let Err(fault) = kv.row_in_bucket(key, value) {
                self.find(Some(actor), fault.code, key, fault.message);
            }
        }
        self.seen.kv_entries += kv.entries;
        // What was damaged cannot be counted.
        if let Some(ledger) = account.ledger.as_ref().filter(|_| !kv.uncounted) {
            for fault in kv.compare(ledger.kv_bytes, ledger.kv_buckets) {
                self.find(Some(actor), fault.code, &[], fault.message);
            }
        }
        Ok(())
    }

    /// Notes are of commits that were made, and the ledger knows how many bytes they have. Those from before its beginning wait
    /// to be removed.
    fn history(&mut self, account: &Account<'_>, kinds: [&mut Stream<'a>; 2]) -> Result<(), StoreError> {
        let actor = account.actor;
        let mut bytes = 0;
        let mut uncounted = false;
        for stream in kinds {
            while let Some((key, value)) = self.next_of(stream, actor)? {
                let head = match history::check_row(key, value) {
                    Ok(head) => head,
                    Err(damaged) => {
                        self.damaged(actor, key, damaged, "");
                        uncounted = true;
                        continue;
                    }
                };
                let Some(ledger) = &account.ledger else { continue };
                if head > ledger.head {
                    let message = format!("there are notes of commit {head}, and the newest is {}", ledger.head);
                    self.find(Some(actor), "history.beyond_head", key, message);
                }
                if ledger.history.is_some_and(|kept| kept.first <= head) {
                    bytes += (key.len() + value.len()) as u64;
                } else if !ledger.old_notes {
                    let message = format!("there are notes of commit {head}, from before its history");
                    self.find(Some(actor), "history.unknown", key, message);
                }
            }
        }
        let counted = account.ledger.as_ref().and_then(|ledger| ledger.history).map(|kept| kept.bytes);
        if let Some(counted) = counted.filter(|counted| !uncounted && *counted != bytes) {
            let message = format!("its ledger counts {counted} bytes of history, and there are {bytes}");
            self.find(Some(actor), "ledger.history_bytes", &[], message);
        }
        Ok(())
    }
}

/// The rest of a key behind `start`, if it has this length.
fn number_after<const N: usize>(key: &[u8], start: usize) -> Option<[u8; N]> {
    key.get(start..)?.try_into().ok()
}

/// The number of the staged commit, and of the page with which the row or segment begins.
fn staged_key(key: &[u8]) -> Option<(u64, u32)> {
    let number = number_after::<12>(key, PREFIX_BYTES)?;
    let (stage, _) = number.split_first_chunk()?;
    Some((u64::from_be_bytes(*stage), record::last_u32(key)?))
}
