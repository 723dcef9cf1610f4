//! The vector file of `spec/envoy-protocol.md` 20: complete messages of version 8.

use bytes::Bytes;
use protocol::envoy::{PROTOCOL_VERSION, ServerlessStart, ToEnvoy, ToRivet};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::shapes::Shape;
use crate::{hex, unhex};

#[derive(Deserialize)]
struct File {
    version: u16,
    count: usize,
    vectors: Vec<Vector>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) direction: String,
    value: Value,
    hex: String,
}

impl Vector {
    pub(crate) fn bytes(&self) -> Bytes {
        unhex(&self.hex)
    }
}

/// The vectors of one direction.
pub(crate) fn vectors(direction: &str) -> Vec<Vector> {
    load().vectors.into_iter().filter(|vector| vector.direction == direction).collect()
}

fn load() -> File {
    serde_json::from_str(include_str!("../vectors/envoy-protocol-vectors.json")).unwrap()
}

#[test]
fn every_vector_is_covered_or_named_here() {
    let file = load();
    assert_eq!((file.version, file.count, file.vectors.len()), (PROTOCOL_VERSION, 128, 128));
    let counts = ["to_rivet", "to_envoy", "serverless_start_body"].map(|direction| vectors(direction).len());
    assert_eq!(counts, [55, 62, 1]);
    // Unions of section 17, which no peer ever sees: our engine has other internals.
    assert_eq!(vectors("internal").len(), 10);
}

#[test]
fn to_rivet() {
    for vector in vectors("to_rivet") {
        let message = ToRivet::decode(vector.bytes(), PROTOCOL_VERSION).unwrap();
        assert_eq!(message.notation(), vector.value, "{}", vector.name);
        assert_eq!(hex(&message.to_frame(PROTOCOL_VERSION).unwrap()), vector.hex, "{}", vector.name);
    }
}

#[test]
fn to_envoy() {
    for vector in vectors("to_envoy") {
        let message = ToEnvoy::decode(vector.bytes(), PROTOCOL_VERSION).unwrap();
        assert_eq!(message.notation(), vector.value, "{}", vector.name);
        assert_eq!(hex(&message.to_frame(PROTOCOL_VERSION).unwrap()), vector.hex, "{}", vector.name);
    }
}

#[test]
fn serverless_start_body() {
    for vector in vectors("serverless_start_body") {
        let (version, start) = ServerlessStart::from_body(vector.bytes()).unwrap();
        let inner = json!({"tag": "CommandStartActor", "val": start.command.notation()});
        let command = json!({"checkpoint": start.checkpoint.notation(), "inner": inner});
        assert_eq!(json!({"version": version, "message": {"tag": "ToEnvoyCommands", "val": [command]}}), vector.value);
        assert_eq!(hex(&start.to_body(version).unwrap()), vector.hex);
    }
}
