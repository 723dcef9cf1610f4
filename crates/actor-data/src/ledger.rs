//! The account of an actor's data: head and size of its database, bytes used, and the staged commit.
//!
//! Key: `41`, actor id (18). Without a record everything is 0.
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | head | 8 | number of the newest commit |
//! | size | 4 | pages of the database |
//! | high water | 4 | no page row is above this number; above `size` only while rows wait to be removed |
//! | KV bytes | 8 | keys, values and 32 for each entry |
//! | KV buckets | 8 | buckets ever made (`kv::bucket`) |
//! | stages | 8 | staged commits ever begun |
//! | held | 8 | newest head whose undo needs the rows that upkeep would remove (`sqlite::undo`); 0 if there is none, or upkeep has begun |
//! | leftovers | 1 | 1 if there may be rows of staged commits that came to nothing, or of a published one's segments |
//! | restore rows | 1 | 1 if there may be rows of a restore that is not published |
//! | old notes | 1 | 1 if there may be notes from before the history, or of one that has ended (`sqlite::history`) |
//! | stage | 1 | 0 none, 1 open, 2 published |
//! | number | 8 | only if published: of the stage; 0 if it is that of a restore (`sqlite::history`) |
//! | limit | 4 | only if published: size of the database then; staged pages above it do not count |
//! | generation | 4 | only if open: who began it |
//! | pages | 4 | only if open: staged so far |
//! | segments | 4 | only if open: staged so far |
//! | last segment | 4 | only if open: first page of the last segment, 0 if there is none |
//! | deleting | 1 | 0 nothing, 1 a range of KV entries, 2 one to the end of all: what is left of it goes first (`kv::deletion`) |
//! | start | 2 and more | only if deleting: length and bytes of the range's first key |
//! | end | 2 and more | only if 1: the same of the key behind its last one |
//! | history | 1 | 1 if the database's past is kept (`sqlite::history`) |
//! | first | 8 | only if kept: the commits from this one on are noted; rows of earlier ones are of no use |
//! | since | 8 | only if kept: what the database was from this time on is known, epoch milliseconds |
//! | newest | 8 | only if kept: time of the newest commit that was noted |
//! | bytes | 8 | only if kept: of the rows from `first` on, keys and values |
//! | forgotten | 8 | only if kept: bytes of all rows from before `first` since the history began |
//! | due | 8 | only if kept: when the oldest rows are to be forgotten, epoch milliseconds |
//! | seal | 4 | `record` |

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

use crate::kv::KeyRange;
use crate::limits::PAGE_BYTES;
use crate::record::{self, Damaged, Fields, Subspace};

const RECORD: &str = "ledger";
/// More than a ledger has, its seal included, unless key-value entries are being deleted.
const USUAL_BYTES: usize = 144;

const VERSION: u8 = 1;
const STAGE_NONE: u8 = 0;
const STAGE_OPEN: u8 = 1;
const STAGE_PUBLISHED: u8 = 2;
const DELETING_NOTHING: u8 = 0;
const DELETING_TO_KEY: u8 = 1;
const DELETING_TO_END: u8 = 2;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) head: u64,
    pub(crate) size: u32,
    pub(crate) high_water: u32,
    pub(crate) kv_bytes: u64,
    pub(crate) kv_buckets: u64,
    /// Number of the newest staged commit, and so of the one in `stage`.
    pub(crate) stages: u64,
    /// Newest head whose undo needs what upkeep would remove: rows above the size, or those that a published stage hides.
    /// 0 as soon as some of it is removed.
    pub(crate) held: u64,
    pub(crate) leftovers: bool,
    pub(crate) restore_rows: bool,
    /// There may be notes from before the history, or of one that has ended.
    pub(crate) old_notes: bool,
    pub(crate) stage: Stage,
    /// A range of key-value entries whose deletion was promised, and of which some may be left.
    pub(crate) deleting: Option<KeyRange>,
    /// None if no history is kept.
    pub(crate) history: Option<Kept>,
}

/// The past of a database, as far as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The commits from this one on are noted, except those that were undone.
    pub(crate) first: u64,
    /// What the database was from this time on is known, in epoch milliseconds.
    pub(crate) since: i64,
    /// Time of the newest commit that was noted, in epoch milliseconds.
    pub(crate) newest: i64,
    /// Of the rows from `first` on, keys and values. They do not count against the storage limit.
    pub(crate) bytes: u64,
    /// Bytes of all rows from before `first` since the history began, whether they are still there or not.
    pub(crate) forgotten: u64,
    /// When the oldest rows are to be forgotten, in epoch milliseconds; without rows it means nothing.
    pub(crate) due: i64,
}

impl Kept {
    /// Bytes of all rows since the history began.
    pub(crate) fn noted(&self) -> u64 {
        self.forgotten + self.bytes
    }

    /// Whether rows are to be forgotten: the oldest are older than their window, or all of them take too much room.
    pub(crate) fn is_due(&self, now: i64, max_bytes: u64) -> bool {
        self.bytes > max_bytes || (self.bytes > 0 && now >= self.due)
    }
}

/// The stage of a restore's pages. Those of hosts count from 1.
pub(crate) const RESTORE_STAGE: u64 = 0;

/// State of the newest staged commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none, or it came to nothing.
    #[default]
    None,
    /// It takes segments.
    Open(OpenStage),
    /// Its pages are part of the database, and move into the page rows one after the other. Until a page has moved, its
    /// staged row counts.
    Published {
        /// Of the stage: the newest, or that of a restore.
        number: u64,
        /// Size of the database when it was published: staged pages above it do not count.
        limit: u32,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OpenStage {
    pub(crate) generation: u32,
    pub(crate) pages: u32,
    pub(crate) segments: u32,
    pub(crate) last_segment: u32,
}

pub(crate) fn key(actor: &Id) -> Bytes {
    record::key(Subspace::Ledger, actor, &[])
}

impl Ledger {
    /// Bytes that count against the storage limit. A page within the size counts whether it has a row or not, so that no
    /// commit needs to find out.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.kv_bytes + u64::from(self.size) * PAGE_BYTES as u64
    }

    /// Whether the size must not become this yet, because of rows that would count then and must not.
    pub(crate) fn must_settle_before(&self, size: u32) -> bool {
        let is_published = self.published().is_some();
        (size > self.size && self.high_water > self.size) || (size < self.size && is_published)
    }

    /// Whether the rows say more than `size` does.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.high_water > self.size || self.published().is_some()
    }

    /// Number of the stage whose rows count before those of the database.
    pub(crate) fn published(&self) -> Option<u64> {
        match self.stage {
            Stage::Published { number, .. } => Some(number),
            Stage::None | Stage::Open(_) => None,
        }
    }

    /// Whether what the newest commit overwrites or removes is noted (`sqlite::history`).
    pub(crate) fn notes(&self) -> bool {
        self.history.is_some_and(|kept| kept.first <= self.head)
    }

    /// Whether the row of this page in a published stage, if there is one, counts before that of the database.
    pub(crate) fn counts_staged(&self, pgno: u32) -> bool {
        matches!(self.stage, Stage::Published { limit, .. } if pgno <= limit)
    }

    /// Whether an earlier change has left work behind.
    pub(crate) fn needs_upkeep(&self) -> bool {
        self.leftovers || self.restore_rows || self.is_unsettled()
    }

    /// Adds this account of an actor to a batch.
    pub(crate) fn put(&self, batch: &mut Batch, actor: &Id) {
        record::put(batch, key(actor), self.encode());
    }

    fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(USUAL_BYTES);
        value.push(VERSION);
        value.extend(self.head.to_be_bytes());
        value.extend(self.size.to_be_bytes());
        value.extend(self.high_water.to_be_bytes());
        value.extend(self.kv_bytes.to_be_bytes());
        value.extend(self.kv_buckets.to_be_bytes());
        value.extend(self.stages.to_be_bytes());
        value.extend(self.held.to_be_bytes());
        value.push(u8::from(self.leftovers));
        value.push(u8::from(self.restore_rows));
        value.push(u8::from(self.old_notes));
        match &self.stage {
            Stage::None => value.push(STAGE_NONE),
            Stage::Open(open) => {
                value.push(STAGE_OPEN);
                for field in [open.generation, open.pages, open.segments, open.last_segment] {
                    value.extend(field.to_be_bytes());
                }
            }
            Stage::Published { number, limit } => {
                value.push(STAGE_PUBLISHED);
                value.extend(number.to_be_bytes());
                value.extend(limit.to_be_bytes());
            }
        }
        match &self.deleting {
            None => value.push(DELETING_NOTHING),
            Some(KeyRange { start, end: Some(end) }) => {
                value.push(DELETING_TO_KEY);
                push_key(&mut value, start);
                push_key(&mut value, end);
            }
            Some(KeyRange { start, end: None }) => {
                value.push(DELETING_TO_END);
                push_key(&mut value, start);
            }
        }
        value.push(u8::from(self.history.is_some()));
        if let Some(Kept { first, since, newest, bytes, forgotten, due }) = self.history {
            value.extend(first.to_be_bytes());
            value.extend(since.to_be_bytes());
            value.extend(newest.to_be_bytes());
            value.extend(bytes.to_be_bytes());
            value.extend(forgotten.to_be_bytes());
            value.extend(due.to_be_bytes());
        }
        value
    }

    pub(crate) fn decode(actor: &Id, value: &[u8]) -> Result<Self, Damaged> {
        let body = record::unseal(RECORD, &key(actor), value)?;
        Self::parse(Fields(body)).ok_or(Damaged { record: RECORD })
    }

    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        if fields.u8()? != VERSION {
            return None;
        }
        let ledger = Self {
            head: fields.u64()?,
            size: fields.u32()?,
            high_water: fields.u32()?,
            kv_bytes: fields.u64()?,
            kv_buckets: fields.u64()?,
            stages: fields.u64()?,
            held: fields.u64()?,
            leftovers: read_flag(&mut fields)?,
            restore_rows: read_flag(&mut fields)?,
            old_notes: read_flag(&mut fields)?,
            stage: match fields.u8()? {
                STAGE_NONE => Stage::None,
                STAGE_OPEN => Stage::Open(OpenStage {
                    generation: fields.u32()?,
                    pages: fields.u32()?,
                    segments: fields.u32()?,
                    last_segment: fields.u32()?,
                }),
                STAGE_PUBLISHED => Stage::Published { number: fields.u64()?, limit: fields.u32()? },
                _ => return None,
            },
            deleting: match fields.u8()? {
                DELETING_NOTHING => None,
                DELETING_TO_KEY => Some(KeyRange { start: read_key(&mut fields)?, end: Some(read_key(&mut fields)?) }),
                DELETING_TO_END => Some(KeyRange { start: read_key(&mut fields)?, end: None }),
                _ => return None,
            },
            history: match read_flag(&mut fields)? {
                false => None,
                true => Some(Kept {
                    first: fields.u64()?,
                    since: fields.i64()?,
                    newest: fields.i64()?,
                    bytes: fields.u64()?,
                    forgotten: fields.u64()?,
                    due: fields.i64()?,
                }),
            },
        };
        fields.end()?;
        Some(ledger)
    }
}

fn read_flag(fields: &mut Fields<'_>) -> Option<bool> {
    match fields.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Keys have at most 2,048 bytes, so that their length always fits.
fn push_key(value: &mut Vec<u8>, key: &Bytes) {
    value.extend((key.len() as u16).to_be_bytes());
    value.extend(key);
}

fn read_key(fields: &mut Fields<'_>) -> Option<Bytes> {
    let length = fields.u16()?;
    fields.bytes(length.into()).map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage() -> impl Strategy<Value = Stage> {
        let open = any::<(u32, u32, u32, u32)>().prop_map(|(generation, pages, segments, last_segment)| {
            Stage::Open(OpenStage { generation, pages, segments, last_segment })
        });
        let published = any::<(u64, u32)>().prop_map(|(number, limit)| Stage::Published { number, limit });
        prop_oneof![Just(Stage::None), published, open]
    }

    fn deleting() -> impl Strategy<Value = Option<KeyRange>> {
        let key = || prop::collection::vec(any::<u8>(), 0..10).prop_map(Bytes::from);
        let range = (key(), prop::option::of(key())).prop_map(|(start, end)| KeyRange { start, end });
        prop::option::of(range)
    }

    fn history() -> impl Strategy<Value = Option<Kept>> {
        let kept = any::<(u64, i64, i64, u64, u64, i64)>();
        prop::option::of(kept.prop_map(|(first, since, newest, bytes, forgotten, due)| Kept {
            first,
            since,
            newest,
            bytes,
            forgotten,
            due,
        }))
    }

    proptest! {
        #[test]
        fn round_trips(
            numbers: (u64, u32, u32, u64, u64, u64, u64),
            leftovers: bool,
            restore_rows: bool,
            old_notes: bool,
            stage in stage(),
            deleting in deleting(),
            history in history(),
            cut in 0..150usize,
        ) {
            let (head, size, high_water, kv_bytes, kv_buckets, stages, held) = numbers;
            let ledger = Ledger {
                head,
                size,
                high_water,
                kv_bytes,
                kv_buckets,
                stages,
                held,
                leftovers,
                restore_rows,
                old_notes,
                stage,
                deleting,
                history,
            };
            let body = ledger.encode();
            let decode = |body: &[u8]| Ledger::decode(&Id::NIL, &record::seal(&key(&Id::NIL), body.to_vec()));
            prop_assert!(ledger.deleting.is_some() || body.len() + record::SEAL_BYTES <= USUAL_BYTES);
            prop_assert_eq!(decode(&body), Ok(ledger));
            if cut < body.len() {
                prop_assert!(decode(&body[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_flag_that_is_neither_0_nor_1_is_damage() {
        let body = Ledger::default().encode();
        // Leftovers, restore rows, old notes, and at the end the history.
        for at in [49, 50, 51, body.len() - 1] {
            let mut changed = body.clone();
            assert_eq!(std::mem::replace(&mut changed[at], 2), 0);
            let sealed = record::seal(&key(&Id::NIL), changed);
            assert_eq!(Ledger::decode(&Id::NIL, &sealed), Err(Damaged { record: RECORD }), "byte {at}");
        }
    }
}
