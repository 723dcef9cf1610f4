//! The head of an actor's answer, as the client gets it (`spec/gateway.md` 13).

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};
use protocol::envoy::ResponseStart;

use crate::headers;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: BodyKind,
}

/// What follows the head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// Nothing, whatever the actor sends.
    None,
    /// What the actor's message has.
    Whole,
    /// What the actor's chunks have: so many bytes, if it has said so.
    Streamed {
        /// The announced length, in bytes.
        announced: Option<u64>,
    },
}

/// An answer that HTTP has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnusableHead {
    /// No status code.
    Status,
    /// A status code that comes before an answer, not as one.
    Informational,
    /// A header that is none.
    Header,
}

impl AnswerHead {
    pub(super) fn new(start: &ResponseStart, method: &Method) -> Result<Self, UnusableHead> {
        let status = StatusCode::from_u16(start.status).map_err(|_| UnusableHead::Status)?;
        if status.is_informational() {
            return Err(UnusableHead::Informational);
        }
        let mut headers = headers::for_client(&start.headers).map_err(|_| UnusableHead::Header)?;
        let announced = headers::content_length(&headers);
        let has_no_body = *method == Method::HEAD || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let body = if has_no_body || status == StatusCode::RESET_CONTENT || (start.stream && announced == Some(0)) {
            BodyKind::None
        } else if start.stream {
            BodyKind::Streamed { announced }
        } else {
            BodyKind::Whole
        };
        // Only these announce a length without having it.
        let tells_length_of_another = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
        let is_kept = announced.is_some() && (tells_length_of_another || matches!(body, BodyKind::Streamed { .. }));
        if !is_kept {
            // What the actor announces may be wrong, or no number, and would hang or cut the client.
            headers.remove(CONTENT_LENGTH);
        }
        if body == BodyKind::Whole {
            let bytes = start.body.as_ref().map_or(0, bytes::Bytes::len) as u64;
            headers.insert(CONTENT_LENGTH, bytes.into());
        }
        Ok(Self { status, headers, body })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::envoy::Headers;

    use super::*;

    fn start(status: u16, length: Option<&str>, body: &'static str, stream: bool) -> ResponseStart {
        let headers: Headers = length.map(|length| ("Content-Length".to_owned(), length.to_owned())).into_iter().collect();
        ResponseStart { status, headers, body: Some(Bytes::from(body)), stream }
    }

    #[test]
    fn only_a_true_length_reaches_the_client() {
        let (get, head) = (Method::GET, Method::HEAD);
        let streamed = |announced| BodyKind::Streamed { announced };
        for (method, status, length, body, stream, sent, kind) in [
            (&get, 200, None, "hello", false, Some("5"), BodyKind::Whole),
            (&get, 200, Some("3"), "hello", false, Some("5"), BodyKind::Whole),
            (&get, 200, Some("x"), "", false, Some("0"), BodyKind::Whole),
            (&get, 200, None, "", true, None, streamed(None)),
            (&get, 200, Some("9"), "", true, Some("9"), streamed(Some(9))),
            (&get, 200, Some("9, 9"), "", true, None, streamed(None)),
            (&get, 200, Some("-1"), "", true, None, streamed(None)),
            (&get, 200, Some("0"), "", true, None, BodyKind::None),
            (&get, 204, Some("5"), "hello", false, None, BodyKind::None),
            (&get, 205, Some("5"), "hello", true, None, BodyKind::None),
            (&get, 304, Some("5"), "", false, Some("5"), BodyKind::None),
            (&get, 304, Some("five"), "", false, None, BodyKind::None),
            (&head, 200, Some("5"), "hello", true, Some("5"), BodyKind::None),
            (&head, 200, None, "hello", false, None, BodyKind::None),
        ] {
            let answer = AnswerHead::new(&start(status, length, body, stream), method).unwrap();
            let got = answer.headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!((got, answer.body), (sent, kind), "{method} {status} {length:?} {stream}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let refused = |status| AnswerHead::new(&start(status, None, "", false), &Method::GET).err();
        assert_eq!(refused(99), Some(UnusableHead::Status));
        assert_eq!(refused(1000), Some(UnusableHead::Status));
        assert_eq!(refused(101), Some(UnusableHead::Informational));
        assert_eq!(refused(999), None);
        let mut bad = start(200, None, "", false);
        bad.headers = std::iter::once(("a b".to_owned(), "x".to_owned())).collect();
        assert_eq!(AnswerHead::new(&bad, &Method::GET).err(), Some(UnusableHead::Header));
    }
}
