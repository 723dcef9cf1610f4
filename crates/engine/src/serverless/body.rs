//! Reading the body of an answer, so far and no further.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::client::causes;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// There is more of it than is wanted.
    #[error("the answer has more than {max} bytes")]
    TooLarge {
        /// What was wanted.
        max: usize,
        /// That much of it.
        beginning: Bytes,
    },
    /// The connection broke. The text names all causes, the outermost first, one in each line.
    #[error("error decoding response body\n{0}")]
    Broken(String),
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read(mut body: Incoming, max: usize) -> Result<Bytes, ReadError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Broken(causes(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = max - read.len();
        if data.len() > room {
            read.extend_from_slice(&data[..room]);
            return Err(ReadError::TooLarge { max, beginning: read.freeze() });
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}
