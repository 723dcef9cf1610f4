//! The event stream with which an endpoint answers a start request (`spec/scheduling.md` 9.4): a reader that takes the bytes
//! as they come and keeps next to nothing.

/// The longest event name that means something has 8 bytes; of anything else the beginning is enough for the log.
const NAME_MAX_BYTES: usize = 64;
/// `event: ` and a name. What a line says beyond that is of no interest.
const LINE_MAX_BYTES: usize = 7 + NAME_MAX_BYTES;

/// An event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The endpoint is there.
    Ping,
    /// The actor of the request has stopped; the stream ends.
    Stopping,
    /// Something that this engine does not know, by the beginning of its name. An event without a name is a `message`.
    Other(String),
}

/// Reads a stream piece by piece. Its memory does not depend on what comes.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    /// The beginning of the line that is being read.
    line: Vec<u8>,
    /// The name of the event that is being read.
    name: Option<String>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed right behind it belongs to the same line end.
    after_carriage_return: bool,
    /// The first line may begin with a byte order mark.
    is_later_line: bool,
}

impl EventStream {
    /// Reads on; returns the events that are complete now.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let ends_line = match byte {
                b'\n' if self.after_carriage_return => false,
                b'\n' | b'\r' => true,
                _ => {
                    if self.line.len() < LINE_MAX_BYTES {
                        self.line.push(byte);
                    }
                    false
                }
            };
            self.after_carriage_return = byte == b'\r';
            if ends_line {
                events.extend(self.end_line());
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.is_later_line, true);
        let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(&line) } else { &line };
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
            b"data" => self.has_data = true,
            // Comments and the fields `id` and `retry` are for clients that reconnect.
            _ => {}
        }
        None
    }

    /// A blank line. Only an event that says something counts: endpoints send blank lines and comments to keep a stream alive.
    fn end_event(&mut self) -> Option<Event> {
        let name = self.name.take().filter(|name| !name.is_empty());
        let has_data = std::mem::take(&mut self.has_data);
        match name.as_deref() {
            Some("ping") => Some(Event::Ping),
            Some("stopping") => Some(Event::Stopping),
            Some(name) => Some(Event::Other(name.to_owned())),
            None if has_data => Some(Event::Other("message".to_owned())),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: impl AsRef<[u8]>) -> Vec<Event> {
        EventStream::default().read(text.as_ref())
    }

    fn other(name: &str) -> Event {
        Event::Other(name.to_owned())
    }

    #[test]
    fn what_endpoints_send() {
        assert_eq!(whole("event: ping\ndata:\n\nevent: stopping\ndata:\n\n"), [Event::Ping, Event::Stopping]);
        assert_eq!(whole("\u{feff}event:ping\r\n\r\n:comment\r\rdata: {}\revent\r\r"), [Event::Ping, other("message")]);
        assert_eq!(whole("event: a\nevent: stopping\nid: 7\nretry: 1\n\n"), [Event::Stopping]);
        assert_eq!(
            whole("event: pin\n\nevent:  ping\n\ndata: event: ping\n\n"),
            [other("pin"), other(" ping"), other("message")]
        );
    }

    #[test]
    fn nothing_before_the_end_of_an_event() {
        assert_eq!(whole("event: stopping\ndata:\n"), []);
        assert_eq!(whole("\n\n\r\n: still here\n\n"), []);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut stream = EventStream::default();
        assert_eq!(stream.read(b"event: "), []);
        for _ in 0..1_000 {
            assert_eq!(stream.read(&[b'x'; 1_024]), []);
        }
        assert!(stream.line.len() <= LINE_MAX_BYTES);
        assert_eq!(stream.read(b"\n\nevent: ping\n\n"), [other(&"x".repeat(NAME_MAX_BYTES)), Event::Ping]);
    }

    proptest! {
        /// However a stream is cut into pieces, it says the same.
        #[test]
        fn pieces_do_not_matter(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "event: ping", "event:stopping", "event: \u{e4}\u{1f600}", "data", "data: x", ": c", "", "", "\u{feff}", "event",
                ]),
                0..30,
            ),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r", "\r\n"]), 30),
            cuts in prop::collection::vec(1usize..9, 0..80),
        ) {
            let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            let mut rest = text.as_bytes();
            let mut stream = EventStream::default();
            let mut events = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                events.extend(stream.read(piece));
                rest = behind;
            }
            events.extend(stream.read(rest));
            prop_assert_eq!(events, whole(&text));
        }

        /// Whatever comes, the reader keeps a bounded piece of it.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
            let mut stream = EventStream::default();
            stream.read(&bytes);
            prop_assert!(stream.line.len() <= LINE_MAX_BYTES);
            prop_assert!(stream.name.is_none_or(|name| name.len() <= 3 * NAME_MAX_BYTES));
        }
    }
}
