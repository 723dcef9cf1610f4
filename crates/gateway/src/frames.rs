//! Follows the WebSocket frames of a client without looking into them (RFC 6455, 5.2). Pure.
//!
//! The codec cannot say whether it holds a part of a message, nor how large a part. Only when it holds none may it be put away,
//! with its buffer; and what it holds is to be counted.

/// Where in a stream of frames the last byte was.
#[derive(Debug, Default)]
pub(crate) struct FrameBoundary {
    /// The beginning of a frame's header, if not all of it has come.
    header: [u8; HEADER_MAX_BYTES],
    header_bytes: u8,
    /// Bytes of the present frame's payload that are still to come.
    payload_left: u64,
    /// Frames that carry a message's rest are still to come.
    in_message: bool,
    /// Bytes of messages that have come so far.
    carried: u64,
    /// Those of complete messages among them.
    completed: u64,
}

/// Two bytes, eight for the length, four for the mask.
const HEADER_MAX_BYTES: usize = 14;

impl FrameBoundary {
    /// Takes the next bytes.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= skipped;
                bytes = &bytes[skipped as usize..];
                // The header is kept until the next one begins.
                if !self.is_control() {
                    self.carried += skipped;
                }
                self.note_end();
                continue;
            }
            self.header[usize::from(self.header_bytes)] = *first;
            self.header_bytes += 1;
            bytes = rest;
            if let Some(payload) = payload_length(&self.header[..usize::from(self.header_bytes)]) {
                if !self.is_control() {
                    self.in_message = !self.is_final();
                }
                self.payload_left = payload;
                self.header_bytes = 0;
                self.note_end();
            }
        }
    }

    fn is_final(&self) -> bool {
        self.header[0] & 0x80 != 0
    }

    fn is_control(&self) -> bool {
        self.header[0] & 0x08 != 0
    }

    fn note_end(&mut self) {
        if self.payload_left == 0 && !self.in_message {
            self.completed = self.carried;
        }
    }

    /// Bytes of messages that have come so far, without headers and control frames.
    pub(crate) fn carried_bytes(&self) -> u64 {
        self.carried
    }

    /// Those of the message of which more is to come.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        self.carried - self.completed
    }

    /// Whether the last message is complete and nothing of the next one has come.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0 && !self.in_message
    }
}

/// The length of a frame's payload, when its header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
    let (length_bytes, length) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
        127 => (8, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
        short => (0, u64::from(short)),
    };
    (header.len() == 2 + length_bytes + mask_bytes).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, is_final: bool, length: usize) -> Vec<u8> {
        let mut frame = vec![opcode | if is_final { 0x80 } else { 0 }];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0xff; 4]);
        frame.extend(vec![0x81; length]);
        frame
    }

    /// Every cut of a stream into two reads, and reads of one byte, must see the same boundaries.
    #[test]
    fn boundaries_are_found_however_the_bytes_arrive() {
        let frames = [
            (frame(1, true, 0), true, 0),
            (frame(2, true, 125), true, 0),
            (frame(9, true, 3), true, 0),
            (frame(2, false, 126), false, 126),
            (frame(9, true, 3), false, 126),
            (frame(0, false, 0), false, 126),
            (frame(0, false, 7), false, 133),
            (frame(0, true, 65_535), true, 0),
            (frame(2, true, 65_536), true, 0),
        ];
        let mut at_once = FrameBoundary::default();
        let mut one_by_one = FrameBoundary::default();
        for (bytes, complete, unfinished) in &frames {
            at_once.advance(bytes);
            for (index, byte) in bytes.iter().enumerate() {
                one_by_one.advance(&[*byte]);
                let is_last = index + 1 == bytes.len();
                assert_eq!(one_by_one.is_between_messages(), is_last && *complete);
            }
            assert_eq!(at_once.is_between_messages(), *complete);
            assert_eq!((at_once.unfinished_bytes(), one_by_one.unfinished_bytes()), (*unfinished, *unfinished));
        }
        let all: Vec<u8> = frames.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
        for cut in [1, 2, 7, 100, 140, 270, 66_000] {
            let mut halves = FrameBoundary::default();
            halves.advance(&all[..cut]);
            halves.advance(&all[cut..]);
            assert!(halves.is_between_messages(), "cut at {cut}");
            assert_eq!(halves.carried_bytes(), 125 + 126 + 7 + 65_535 + 65_536);
        }
    }
}
