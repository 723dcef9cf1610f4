//! Which generation of an actor may touch its data (`spec/storage.md` 6.5, 16.4).
//!
//! The engine writes this record in the same batch as the actor's lifecycle record: when it issues a start command, and
//! when it destroys the actor. Without a record nobody may touch the data.
//!
//! Key: `40`, actor id (18).
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | state | 1 | 1 alive, 2 destroyed |
//! | generation | 4 | of the last start command; 0 if destroyed |
//! | retention | 4 | seconds for which the generation keeps the history of its database; 0: not at all |
//! | seal | 4 | `record` |

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

use crate::record::{self, Damaged, Fields, Subspace};

const RECORD: &str = "fence";

const VERSION: u8 = 1;
const ALIVE: u8 = 1;
const DESTROYED: u8 = 2;

/// Lets this generation in, and every other one out. It keeps no history of its database.
pub fn set_generation(batch: &mut Batch, actor: &Id, generation: u32) {
    set_generation_with_history(batch, actor, generation, 0);
}

/// As [`set_generation`]. `retention_s`: for how long it keeps the history of its database, in seconds; 0: not at all.
pub fn set_generation_with_history(batch: &mut Batch, actor: &Id, generation: u32, retention_s: u32) {
    record::put(batch, key(actor), encode(ALIVE, generation, retention_s));
}

/// Lets nobody in any more. [`crate::ActorData::delete_all`] then frees the space.
pub fn mark_destroyed(batch: &mut Batch, actor: &Id) {
    record::put(batch, key(actor), encode(DESTROYED, 0, 0));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The current generation.
    Generation {
        /// As wide as in the requests, though stored with 32 bits.
        number: u64,
        /// For how long it keeps the history of its database, in seconds; 0: not at all.
        retention_s: u32,
    },
    Destroyed,
}

pub(crate) fn key(actor: &Id) -> Bytes {
    record::key(Subspace::Fence, actor, &[])
}

fn encode(state: u8, generation: u32, retention_s: u32) -> Vec<u8> {
    let mut value = vec![VERSION, state];
    value.extend(generation.to_be_bytes());
    value.extend(retention_s.to_be_bytes());
    value
}

impl Fence {
    pub(crate) fn decode(actor: &Id, value: &[u8]) -> Result<Self, Damaged> {
        let body = record::unseal(RECORD, &key(actor), value)?;
        Self::parse(Fields(body)).ok_or(Damaged { record: RECORD })
    }

    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let (version, state, generation, retention_s) = (fields.u8()?, fields.u8()?, fields.u32()?, fields.u32()?);
        fields.end()?;
        match (version, state) {
            (VERSION, ALIVE) => Some(Self::Generation { number: generation.into(), retention_s }),
            (VERSION, DESTROYED) => Some(Self::Destroyed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(generation: u32, retention_s: u32) {
            let decode = |body| Fence::decode(&Id::NIL, &record::seal(&key(&Id::NIL), body));
            let alive = Fence::Generation { number: generation.into(), retention_s };
            prop_assert_eq!(decode(encode(ALIVE, generation, retention_s)), Ok(alive));
            prop_assert_eq!(decode(encode(DESTROYED, generation, retention_s)), Ok(Fence::Destroyed));
        }
    }

    #[test]
    fn what_is_no_fence_is_damaged() {
        let whole = encode(ALIVE, 1, 1);
        let (mut newer, mut unknown) = (whole.clone(), whole.clone());
        newer[0] = VERSION + 1;
        unknown[1] = DESTROYED + 1;
        let longer = [whole.as_slice(), &[0]].concat();
        for value in [&[][..], &newer, &unknown, &whole[..whole.len() - 1], &longer] {
            let value = record::seal(&key(&Id::NIL), value.to_vec());
            assert_eq!(Fence::decode(&Id::NIL, &value), Err(Damaged { record: RECORD }), "{value:?}");
        }
    }
}
