//! The envoy protocol: vectors, versions, hostile input.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod hostile;
mod shapes;
mod storage_vectors;
mod vectors;
mod versions;

use bytes::Bytes;

/// Bytes written as hex digits, with spaces where they help the eye.
fn unhex(text: &str) -> Bytes {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
