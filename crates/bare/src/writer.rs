//! Writing to a buffer.

use bytes::{BufMut, BytesMut};

use crate::{Arms, NotInVersion};

/// Appends values to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut BytesMut,
    version: u16,
}

impl<'a> Writer<'a> {
    /// Appends to `buffer` in protocol version `version`.
    pub fn new(buffer: &'a mut BytesMut, version: u16) -> Self {
        Self { buffer, version }
    }

    /// Protocol version to write.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// A variable-length number in its shortest form.
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// A length or count.
    pub fn length(&mut self, length: usize) {
        // No platform has a usize above 64 bits.
        self.uint(length as u64);
    }

    /// Length-prefixed bytes.
    pub fn data(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    /// The tag of the arm at position `ordinal` of `arms`, or an error if the protocol version lacks it.
    pub fn arm<K>(&mut self, arms: &Arms<K>, ordinal: usize) -> Result<(), NotInVersion> {
        let version = self.version;
        let arm = &arms.arms[ordinal];
        if arm.since > version {
            return Err(NotInVersion { union: arms.union, arm: arm.name, since: arm.since, version });
        }
        let tag = arms.arms[..ordinal].iter().filter(|arm| arm.since <= version).count();
        self.length(tag);
        Ok(())
    }
}
