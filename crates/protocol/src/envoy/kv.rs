//! Key-value messages (`spec/envoy-protocol.md` 5.4 and 10; limits in `spec/storage.md` 3.4).

use bytes::Bytes;

use super::wire::{wire_structs, wire_unions};

wire_structs! {
    /// When and by what an entry was written.
    struct KvMetadata {
        /// Version text of the engine that wrote it.
        version: Bytes,
        /// Epoch milliseconds.
        update_ts: i64,
    }
}

wire_unions! {
    /// Which entries a list covers.
    union KvListQuery {
        /// All of the actor.
        All,
        /// From `start` to `end`.
        Range {
            /// First key, inclusive.
            start: Bytes,
            /// Last key.
            end: Bytes,
            /// Leaves `end` itself out.
            exclusive: bool,
        },
        /// Keys that begin with these bytes.
        Prefix {
            /// The prefix.
            key: Bytes,
        },
    }

    /// What is asked of an actor's KV store.
    union KvRequestData {
        /// Read single keys.
        Get {
            /// The keys.
            keys: Vec<Bytes>,
        },
        /// Read entries in key order.
        List {
            /// Which entries.
            query: KvListQuery,
            /// Descending instead of ascending byte order.
            reverse: Option<bool>,
            /// Most entries to return.
            limit: Option<u64>,
        },
        /// Write entries; the two lists belong together by position.
        Put {
            /// The keys.
            keys: Vec<Bytes>,
            /// Their values.
            values: Vec<Bytes>,
        },
        /// Delete single keys.
        Delete {
            /// The keys.
            keys: Vec<Bytes>,
        },
        /// Delete from `start` (inclusive) to `end` (exclusive). Answered with [`KvResponseData::Delete`].
        DeleteRange {
            /// First key.
            start: Bytes,
            /// Key behind the last one.
            end: Bytes,
        },
        /// Delete everything.
        Drop,
    }

    /// Answer to a [`KvRequestData`].
    union KvResponseData {
        /// Nothing was done.
        Error {
            /// Text for the actor.
            message: String,
        },
        /// The entries found; the three lists belong together by position.
        Get {
            /// Keys found, in request order.
            keys: Vec<Bytes>,
            /// Their values.
            values: Vec<Bytes>,
            /// Their metadata.
            metadata: Vec<KvMetadata>,
        },
        /// The entries found; the three lists belong together by position.
        List {
            /// Keys in the order asked for.
            keys: Vec<Bytes>,
            /// Their values.
            values: Vec<Bytes>,
            /// Their metadata.
            metadata: Vec<KvMetadata>,
        },
        /// Written.
        Put,
        /// Deleted.
        Delete,
        /// Everything deleted.
        Drop,
    }
}
