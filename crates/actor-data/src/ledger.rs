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
//! | leftovers | 1 | 1 if there may be rows of staged commits that came to nothing, or of a published one's segments |
//! | stage | 1 | 0 none, 1 open, 2 published |
//! | generation | 4 | only if open: who began it |
//! | pages | 4 | only if open: staged so far |
//! | segments | 4 | only if open: staged so far |
//! | last segment | 4 | only if open: first page of the last segment, 0 if there is none |

use bytes::Bytes;
use protocol::id::Id;

use crate::limits::PAGE_BYTES;
use crate::record::{self, Damaged, Fields, Subspace};

const VERSION: u8 = 1;
const STAGE_NONE: u8 = 0;
const STAGE_OPEN: u8 = 1;
const STAGE_PUBLISHED: u8 = 2;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) head: u64,
    pub(crate) size: u32,
    pub(crate) high_water: u32,
    pub(crate) kv_bytes: u64,
    pub(crate) kv_buckets: u64,
    /// Number of the newest staged commit, and so of the one in `stage`.
    pub(crate) stages: u64,
    pub(crate) leftovers: bool,
    pub(crate) stage: Stage,
}

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
    Published,
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

    /// Whether the rows say more than `size` does, so that it must not change yet.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.high_water > self.size || self.stage == Stage::Published
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(self.head.to_be_bytes());
        value.extend(self.size.to_be_bytes());
        value.extend(self.high_water.to_be_bytes());
        value.extend(self.kv_bytes.to_be_bytes());
        value.extend(self.kv_buckets.to_be_bytes());
        value.extend(self.stages.to_be_bytes());
        value.push(u8::from(self.leftovers));
        match &self.stage {
            Stage::None => value.push(STAGE_NONE),
            Stage::Open(open) => {
                value.push(STAGE_OPEN);
                for field in [open.generation, open.pages, open.segments, open.last_segment] {
                    value.extend(field.to_be_bytes());
                }
            }
            Stage::Published => value.push(STAGE_PUBLISHED),
        }
        value
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Damaged> {
        Self::parse(Fields(value)).ok_or(Damaged { record: "ledger" })
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
            leftovers: fields.u8()? != 0,
            stage: match fields.u8()? {
                STAGE_NONE => Stage::None,
                STAGE_OPEN => Stage::Open(OpenStage {
                    generation: fields.u32()?,
                    pages: fields.u32()?,
                    segments: fields.u32()?,
                    last_segment: fields.u32()?,
                }),
                STAGE_PUBLISHED => Stage::Published,
                _ => return None,
            },
        };
        fields.end()?;
        Some(ledger)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stage() -> impl Strategy<Value = Stage> {
        let open = any::<(u32, u32, u32, u32)>().prop_map(|(generation, pages, segments, last_segment)| {
            Stage::Open(OpenStage { generation, pages, segments, last_segment })
        });
        prop_oneof![Just(Stage::None), Just(Stage::Published), open]
    }

    proptest! {
        #[test]
        fn round_trips(numbers: (u64, u32, u32, u64, u64, u64), leftovers: bool, stage in stage(), cut in 0..60usize) {
            let (head, size, high_water, kv_bytes, kv_buckets, stages) = numbers;
            let ledger = Ledger { head, size, high_water, kv_bytes, kv_buckets, stages, leftovers, stage };
            let value = ledger.encode();
            prop_assert_eq!(Ledger::decode(&value), Ok(ledger));
            if cut < value.len() {
                prop_assert!(Ledger::decode(&value[..cut]).is_err());
            }
        }
    }
}
