//! Ids of actors, namespaces, rays and the like (`spec/engine-api.md` 2).
//!
//! An id is 19 bytes: the version (always 1), a random UUID, and the label of the datacenter that made it, u16
//! big-endian. Its text has 30 characters: the bytes as one little-endian number in base 36, *lowest digit first*.
//! So the text shows the version at its beginning and the label at its end.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of the text form, in characters.
pub const ID_TEXT_LENGTH: usize = 30;

/// Value of the first of the 19 bytes; [`Id`] does not store it.
const VERSION: u8 = 1;
/// Characters that suffice to tell the version: 36^4 is a multiple of 256.
const VERSION_CHARS: usize = 4;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Digits in a chunk: 36^6 is the largest power that fits into 32 bits.
const CHUNK_DIGITS: usize = 6;
/// 36^6.
const CHUNK: u64 = 36u64.pow(CHUNK_DIGITS as u32);
/// 32-bit limbs that hold 19 bytes.
const LIMBS: usize = 5;

/// An id, ordered by its bytes. Not ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// UUID and label, without the version.
    bytes: [u8; 18],
}

/// Id of an actor; its label says which datacenter owns the actor.
pub type ActorId = Id;
/// Id of a namespace.
pub type NamespaceId = Id;
/// Id of one request from outside, for logs.
pub type RayId = Id;

/// Why a text is no id. The texts are part of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Too short to tell the version.
    #[error("invalid input length: expected at least 4 characters")]
    TooShort,
    /// The first byte is not 1.
    #[error("unsupported ID version: {version}")]
    UnsupportedVersion {
        /// The first byte.
        version: u8,
    },
    /// Not 30 characters.
    #[error("invalid input length: expected 30, got {length}")]
    Length {
        /// Characters found.
        length: usize,
    },
    /// Neither a digit nor a letter from `a` to `z`.
    #[error("invalid base36 character: '{character}'")]
    Character {
        /// The character.
        character: char,
    },
    /// The number has more than 19 bytes.
    #[error("byte conversion overflow/underflow")]
    Overflow,
}

impl Id {
    /// The id whose 18 bytes are zero.
    pub const NIL: Self = Self { bytes: [0; 18] };

    /// Puts an id together. `uuid` should be random (version 4), in its normal byte order.
    pub fn from_parts(uuid: [u8; 16], label: u16) -> Self {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&uuid);
        bytes[16..].copy_from_slice(&label.to_be_bytes());
        Self { bytes }
    }

    /// The id with these bytes, as given by [`Id::as_bytes`].
    pub fn from_bytes(bytes: [u8; 18]) -> Self {
        Self { bytes }
    }

    /// UUID and label (big-endian), without the version. Ids sort as these bytes do.
    pub fn as_bytes(&self) -> &[u8; 18] {
        &self.bytes
    }

    /// Label of the datacenter that made the id.
    pub fn label(&self) -> u16 {
        u16::from_be_bytes([self.bytes[16], self.bytes[17]])
    }

    /// The text form, ASCII.
    fn to_text(self) -> [u8; ID_TEXT_LENGTH] {
        let mut number = [0; LIMBS * 4];
        number[0] = VERSION;
        number[1..19].copy_from_slice(&self.bytes);
        let (limbs, _) = number.as_chunks();
        let mut limbs: [u32; LIMBS] = std::array::from_fn(|i| u32::from_le_bytes(limbs[i]));

        let mut text = [b'0'; ID_TEXT_LENGTH];
        for chunk in text.chunks_mut(CHUNK_DIGITS) {
            let mut remainder = divide_by_chunk(&mut limbs);
            for character in chunk {
                *character = DIGITS[(remainder % 36) as usize];
                remainder /= 36;
            }
        }
        text
    }
}

/// Divides the number by 36^6 and returns the remainder. Lowest limb first.
fn divide_by_chunk(limbs: &mut [u32; LIMBS]) -> u64 {
    limbs.iter_mut().rev().fold(0, |remainder, limb| {
        let dividend = remainder << 32 | u64::from(*limb);
        // Fits: the remainder is below the divisor.
        *limb = (dividend / CHUNK) as u32;
        dividend % CHUNK
    })
}

/// Multiplies the number by 36^6 and adds `addend`, which is below 36^6. Lowest limb first.
fn multiply_by_chunk_and_add(limbs: &mut [u32; LIMBS], addend: u64) {
    let mut carry = addend;
    for limb in limbs {
        // Cannot overflow: both factors and the carry are below 2^32.
        let product = u64::from(*limb) * CHUNK + carry;
        *limb = product as u32;
        carry = product >> 32;
    }
}

fn digit(character: char) -> Result<u64, ParseIdError> {
    character.to_digit(36).map(u64::from).ok_or(ParseIdError::Character { character })
}

/// The number whose digits, lowest first, are `characters`; for up to [`CHUNK_DIGITS`] of them.
fn parse_chunk(characters: &[char]) -> Result<u64, ParseIdError> {
    let mut number = 0;
    // Forward over the characters, so that the first bad one is reported.
    for (position, &character) in (0u32..).zip(characters) {
        number += digit(character)? * 36u64.pow(position);
    }
    Ok(number)
}

impl FromStr for Id {
    type Err = ParseIdError;

    /// Accepts upper case.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut characters = ['0'; ID_TEXT_LENGTH];
        let mut length = 0;
        for character in text.chars() {
            if let Some(place) = characters.get_mut(length) {
                *place = character;
            }
            length += 1;
        }
        if length < VERSION_CHARS {
            return Err(ParseIdError::TooShort);
        }
        let [version, ..] = parse_chunk(&characters[..VERSION_CHARS])?.to_le_bytes();
        if version != VERSION {
            return Err(ParseIdError::UnsupportedVersion { version });
        }
        if length != ID_TEXT_LENGTH {
            return Err(ParseIdError::Length { length });
        }

        let mut chunks = [0; ID_TEXT_LENGTH / CHUNK_DIGITS];
        for (chunk, characters) in chunks.iter_mut().zip(characters.chunks(CHUNK_DIGITS)) {
            *chunk = parse_chunk(characters)?;
        }
        let mut limbs = [0; LIMBS];
        for &chunk in chunks.iter().rev() {
            // 36^30 is below 2^160, so nothing goes beyond the highest limb.
            multiply_by_chunk_and_add(&mut limbs, chunk);
        }
        let mut number = [0; LIMBS * 4];
        for (bytes, limb) in number.chunks_mut(4).zip(limbs) {
            bytes.copy_from_slice(&limb.to_le_bytes());
        }
        let [_version, rest @ .., beyond] = number;
        if beyond != 0 {
            return Err(ParseIdError::Overflow);
        }
        Ok(Self { bytes: rest })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        // Digits are ASCII, so this cannot fail.
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As its text.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl serde::de::Visitor<'_> for TextVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(uuid: u128, label: u16) -> Id {
        Id::from_parts(uuid.to_be_bytes(), label)
    }

    #[test]
    fn vectors_of_the_specification() {
        let vectors = [
            (0x1cea2e84_e8b9_4ba2_836d_c2131a52e813, 1, "l7vkd1jx7umf0v9vgriff88ipmal00"),
            (0x1a73c427_7b9c_4fe5_ab11_94fc329deedd, 1, "t1grk39ivi1nilsylxvg2frcrzcl00"),
            (0x5e1ad055_6fe0_415f_ad3e_6fa7c2e9d6a3, 1, "dtqxk16n93g982e76ytpbawwabcl00"),
            (0xaa9abe14_7bfc_41a5_aebd_8ac069920b7f, 1, "ljsipg5o5n1tc0zuqf48rqk9tvbl00"),
            (0x00000000_0000_4000_8000_000000000000, 1, "hkay2d8eub5p74v1pfgpr7isbeal00"),
            (0x12345678_9abc_4def_8123_456789abcdef, 1, "t10jvfz1fwrolwppctplepi7a7dl00"),
            (0x12345678_9abc_4def_8123_456789abcdef, 2, "lnfjssf3qq219luo196b6x00mln610"),
            (0x12345678_9abc_4def_8123_456789abcdef, 0x0102, "1stlw6dzqwuh3sa5o90j842wdlq610"),
            (0xffffffff_ffff_4fff_bfff_ffffffffffff, 1, "tlvwz956fqtfnn7ebgaxtejo3edl00"),
            (0x00000000_0000_4000_8000_000000000001, 65535, "hs4rfgoehktbh7955k1vvz3zhwud74"),
            (0, 0, "100000000000000000000000000000"),
        ];
        for (uuid, label, text) in vectors {
            let id = id(uuid, label);
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_uppercase().parse(), Ok(id));
            assert_eq!(id.label(), label);
            assert_eq!(serde_json::to_value(id).unwrap(), text);
            assert_eq!(serde_json::from_value::<Id>(text.into()).unwrap(), id);
        }
        assert_eq!(Id::NIL, id(0, 0));
    }

    #[test]
    fn failures_have_the_texts_of_the_specification() {
        let failures = [
            ("", "invalid input length: expected at least 4 characters"),
            ("abc", "invalid input length: expected at least 4 characters"),
            ("2000", "unsupported ID version: 2"),
            ("000000000000000000000000000000", "unsupported ID version: 0"),
            ("zzzz", "unsupported ID version: 255"),
            ("1000", "invalid input length: expected 30, got 4"),
            ("l7vkd1jx7umf0v9vgriff88ipmal000", "invalid input length: expected 30, got 31"),
            ("l7vkd1jx7umf0v9vgriff88ipmal0-", "invalid base36 character: '-'"),
            ("é000", "invalid base36 character: 'é'"),
            ("l7vkd1jx7umf0v9vgriff88ipmalé0", "invalid base36 character: 'é'"),
            ("l7vkd1jx7umf0v9vgriff88ipmalzz", "byte conversion overflow/underflow"),
        ];
        for (text, message) in failures {
            assert_eq!(text.parse::<Id>().unwrap_err().to_string(), message, "{text}");
        }
        assert!(serde_json::from_str::<Id>("\"abc\"").is_err());
    }

    #[test]
    fn numbers_of_more_than_19_bytes_are_refused() {
        let largest = Id::from_bytes([0xff; 18]);
        let text = largest.to_string();
        assert_eq!(text.parse(), Ok(largest));
        // One more in the fifth digit adds 36^4, a multiple of 256: the version stays, the bytes no longer suffice.
        let mut digits: Vec<u32> = text.chars().map(|c| c.to_digit(36).unwrap()).collect();
        for digit in &mut digits[4..] {
            *digit += 1;
            if *digit < 36 {
                break;
            }
            *digit = 0;
        }
        let larger: String = digits.iter().map(|&d| char::from_digit(d, 36).unwrap()).collect();
        assert_eq!(larger.parse::<Id>(), Err(ParseIdError::Overflow));
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 18]) {
            let id = Id::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in r"1000[0-9a-zA-Z]{23}[0-9a-lé]00|\PC{0,31}") {
            if let Ok(id) = text.parse::<Id>() {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }
}
