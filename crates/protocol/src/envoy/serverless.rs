//! Body of the request that makes a serverless host start one actor (`spec/envoy-protocol.md` 16): the protocol
//! version as u16 little-endian, then a [`ToEnvoy`] that holds exactly one start command.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::actor::{ActorCheckpoint, Command, CommandStartActor, CommandWrapper};
use super::to_envoy::ToEnvoy;
use super::{DecodeError, EncodeError};

/// Start of one actor on a serverless host.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerlessStart {
    /// Place of the command; its index is 0.
    pub checkpoint: ActorCheckpoint,
    /// The command.
    pub command: CommandStartActor,
}

/// Why a start body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartBodyError {
    /// There is no version prefix.
    #[error("start body is shorter than its version prefix")]
    TooShort,
    /// The message could not be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The message is another one.
    #[error("start body does not hold exactly one start command")]
    NotOneStart,
}

impl ServerlessStart {
    /// The body for a host that speaks `version`.
    pub fn to_body(self, version: u16) -> Result<Bytes, EncodeError> {
        let command = CommandWrapper { checkpoint: self.checkpoint, inner: Command::StartActor(self.command) };
        let mut body = BytesMut::new();
        body.put_u16_le(version);
        ToEnvoy::Commands(vec![command]).encode(version, &mut body)?;
        Ok(body.freeze())
    }

    /// Reads a body: its protocol version, and the start.
    pub fn from_body(mut body: Bytes) -> Result<(u16, Self), StartBodyError> {
        let version = body.try_get_u16_le().map_err(|_| StartBodyError::TooShort)?;
        let ToEnvoy::Commands(commands) = ToEnvoy::decode(body, version)? else {
            return Err(StartBodyError::NotOneStart);
        };
        match <[CommandWrapper; 1]>::try_from(commands) {
            Ok([CommandWrapper { checkpoint, inner: Command::StartActor(command) }]) => {
                Ok((version, Self { checkpoint, command }))
            }
            Ok(_) | Err(_) => Err(StartBodyError::NotOneStart),
        }
    }
}
