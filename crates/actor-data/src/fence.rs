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

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

use crate::record::{self, Damaged, Fields, Subspace};

const VERSION: u8 = 1;
const ALIVE: u8 = 1;
const DESTROYED: u8 = 2;

/// Lets this generation in, and every other one out.
pub fn set_generation(batch: &mut Batch, actor: &Id, generation: u32) {
    batch.put(key(actor), encode(ALIVE, generation));
}

/// Lets nobody in any more. [`crate::ActorData::delete_all`] then frees the space.
pub fn mark_destroyed(batch: &mut Batch, actor: &Id) {
    batch.put(key(actor), encode(DESTROYED, 0));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// The current generation. As wide as in the requests, though stored with 32 bits.
    Generation(u64),
    Destroyed,
}

pub(crate) fn key(actor: &Id) -> Bytes {
    record::key(Subspace::Fence, actor, &[])
}

fn encode(state: u8, generation: u32) -> Vec<u8> {
    let mut value = vec![VERSION, state];
    value.extend(generation.to_be_bytes());
    value
}

impl Fence {
    pub(crate) fn decode(value: &[u8]) -> Result<Self, Damaged> {
        Self::parse(Fields(value)).ok_or(Damaged { record: "fence" })
    }

    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let (version, state, generation) = (fields.u8()?, fields.u8()?, fields.u32()?);
        fields.end()?;
        match (version, state) {
            (VERSION, ALIVE) => Some(Self::Generation(generation.into())),
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
        fn round_trips(generation: u32) {
            prop_assert_eq!(Fence::decode(&encode(ALIVE, generation)), Ok(Fence::Generation(generation.into())));
            prop_assert_eq!(Fence::decode(&encode(DESTROYED, generation)), Ok(Fence::Destroyed));
        }
    }

    #[test]
    fn what_is_no_fence_is_damaged() {
        for value in [&[][..], &[2, 1, 0, 0, 0, 0], &[1, 3, 0, 0, 0, 0], &[1, 1, 0, 0, 0], &[1, 1, 0, 0, 0, 0, 0]] {
            assert_eq!(Fence::decode(value), Err(Damaged { record: "fence" }), "{value:?}");
        }
    }
}
