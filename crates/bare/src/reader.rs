//! Reading from a frame.

use bytes::{Buf, Bytes};

use crate::Arms;

/// Longest unsigned LEB128 number: ten times 7 bits hold 64.
const MAX_UINT_BYTES: usize = 10;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends within a value.
    #[error("the frame ends within a value")]
    UnexpectedEnd,
    /// A length or count says more than there is.
    #[error("a length of {length} with {left} bytes left")]
    LengthBeyondEnd {
        /// The length in bytes, or the count in items.
        length: u64,
        /// Bytes left in the frame.
        left: usize,
    },
    /// The lists and maps of the message have too many items in all.
    #[error("more list items than the {max} that one message may have")]
    TooManyItems {
        /// The bound.
        max: usize,
    },
    /// A variable-length number has more than ten bytes, or more than 64 bits.
    #[error("a variable-length number does not fit into 64 bits")]
    UintTooLong,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    InvalidUtf8,
    /// A union, enum or optional has no such arm in this protocol version.
    #[error("{union} has no arm {tag}")]
    TagOutOfRange {
        /// Name of the type.
        union: &'static str,
        /// The tag read.
        tag: u64,
    },
}

/// Takes values off the front of a frame.
#[derive(Debug)]
pub struct Reader {
    frame: Bytes,
    version: u16,
    max_items: usize,
    items_left: usize,
}

impl Reader {
    /// Reads `frame`, which was written in protocol version `version`. All lists and maps together may have at most
    /// `max_items` items, which bounds the memory that a hostile frame takes to that many values.
    pub fn new(frame: Bytes, version: u16, max_items: usize) -> Self {
        Self { frame, version, max_items, items_left: max_items }
    }

    /// Protocol version of the frame.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.frame.len()
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = *self.frame.first_chunk::<N>().ok_or(DecodeError::UnexpectedEnd)?;
        self.frame.advance(N);
        Ok(bytes)
    }

    /// A variable-length number: 7 bits per byte, lowest first. Longer forms than needed are accepted.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (position, &byte) in self.frame.iter().take(MAX_UINT_BYTES).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * position;
            if bits << shift >> shift != bits {
                return Err(DecodeError::UintTooLong);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.frame.advance(position + 1);
                return Ok(value);
            }
        }
        if self.frame.len() < MAX_UINT_BYTES { Err(DecodeError::UnexpectedEnd) } else { Err(DecodeError::UintTooLong) }
    }

    /// Length-prefixed bytes, as a slice of the frame.
    pub fn data(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.count(1)?;
        Ok(self.frame.split_to(length))
    }

    /// Length-prefixed UTF-8.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let length = self.count(1)?;
        let text = std::str::from_utf8(&self.frame[..length]).map_err(|_| DecodeError::InvalidUtf8)?.to_owned();
        self.frame.advance(length);
        Ok(text)
    }

    /// The count before the items of a list or map, each of which takes at least `min_item_size` bytes (not 0).
    /// Memory for that many items may be reserved.
    pub(crate) fn items(&mut self, min_item_size: usize) -> Result<usize, DecodeError> {
        let count = self.count(min_item_size)?;
        self.items_left = self.items_left.checked_sub(count).ok_or(DecodeError::TooManyItems { max: self.max_items })?;
        Ok(count)
    }

    /// A count of things for which the rest of the frame has room.
    fn count(&mut self, min_item_size: usize) -> Result<usize, DecodeError> {
        let length = self.uint()?;
        let left = self.frame.len();
        match usize::try_from(length) {
            Ok(count) if count <= left / min_item_size => Ok(count),
            Ok(_) | Err(_) => Err(DecodeError::LengthBeyondEnd { length, left }),
        }
    }

    /// The tag of a union, as the key of the arm that has this tag in the frame's protocol version.
    pub fn arm<K: Copy>(&mut self, arms: &Arms<K>) -> Result<K, DecodeError> {
        let tag = self.uint()?;
        let mut present = arms.arms.iter().filter(|arm| arm.since <= self.version);
        let arm = usize::try_from(tag).ok().and_then(|tag| present.nth(tag));
        arm.map(|arm| arm.key).ok_or(DecodeError::TagOutOfRange { union: arms.union, tag })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::{Arm, Codec, NotInVersion, Writer};

    fn reader(bytes: &'static [u8]) -> Reader {
        Reader::new(Bytes::from_static(bytes), 1, 100)
    }

    #[test]
    fn uint_has_at_most_ten_bytes_and_64_bits() {
        assert_eq!(reader(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").uint(), Ok(u64::MAX));
        assert_eq!(reader(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02").uint(), Err(DecodeError::UintTooLong));
        assert_eq!(reader(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00").uint(), Err(DecodeError::UintTooLong));
        assert_eq!(reader(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80").uint(), Err(DecodeError::UnexpectedEnd));
        assert_eq!(reader(b"\x81\x00").uint(), Ok(1));
    }

    #[test]
    fn data_is_a_slice_of_the_frame() {
        let frame = Bytes::from(b"\x03abc".to_vec());
        let data = Reader::new(frame.clone(), 1, 0).data().unwrap();
        assert_eq!(data, "abc");
        assert_eq!(data.as_ptr(), frame[1..].as_ptr());
    }

    #[test]
    fn items_are_counted_over_all_lists() {
        let read = |max_items| {
            let mut reader = Reader::new(Bytes::from_static(b"\x02\x01a\x02bc"), 1, max_items);
            Vec::<Bytes>::read(&mut reader).map(|items| (items.len(), reader.remaining()))
        };
        assert_eq!(read(2), Ok((2, 0)));
        assert_eq!(read(1), Err(DecodeError::TooManyItems { max: 1 }));

        let mut nested = Reader::new(Bytes::from_static(b"\x02\x01\x00\x01\x00"), 1, 3);
        assert_eq!(Vec::<Vec<Bytes>>::read(&mut nested), Err(DecodeError::TooManyItems { max: 3 }));
    }

    #[test]
    fn arms_close_the_gap_of_an_arm_that_a_version_lacks() {
        const ARMS: Arms<char> = Arms {
            union: "Letter",
            arms: &[
                Arm { name: "A", since: 0, key: 'a' },
                Arm { name: "B", since: 3, key: 'b' },
                Arm { name: "C", since: 2, key: 'c' },
            ],
        };
        for (version, letters) in [(1, "a"), (2, "ac"), (3, "abc")] {
            for (ordinal, arm) in ARMS.arms.iter().enumerate() {
                let mut buffer = BytesMut::new();
                let written = Writer::new(&mut buffer, version).arm(&ARMS, ordinal);
                match letters.find(arm.key) {
                    Some(tag) => {
                        assert_eq!(written, Ok(()));
                        assert_eq!(buffer.to_vec(), [u8::try_from(tag).unwrap()]);
                        assert_eq!(Reader::new(buffer.freeze(), version, 0).arm(&ARMS), Ok(arm.key));
                    }
                    None => {
                        let missing = NotInVersion { union: "Letter", arm: arm.name, since: arm.since, version };
                        assert_eq!(written, Err(missing));
                        assert!(buffer.is_empty());
                    }
                }
            }
            let behind_the_last = Bytes::from(vec![u8::try_from(letters.len()).unwrap()]);
            let error = DecodeError::TagOutOfRange { union: "Letter", tag: letters.len() as u64 };
            assert_eq!(Reader::new(behind_the_last, version, 0).arm(&ARMS), Err(error));
        }
    }

    proptest! {
        #[test]
        fn uint_round_trips(value: u64, shift in 0..64u32) {
            let value = value >> shift;
            let mut buffer = BytesMut::new();
            Writer::new(&mut buffer, 1).uint(value);
            // Seven bits per byte, and one byte at least.
            prop_assert_eq!(buffer.len(), (64 - value.leading_zeros()).div_ceil(7).max(1) as usize);
            prop_assert_eq!(Reader::new(buffer.freeze(), 1, 0).uint(), Ok(value));
        }
    }
}
