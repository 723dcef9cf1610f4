//! The socket of a client or a host.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Empty, ReadBuf, empty};
use tokio::net::TcpStream;

use crate::budget::Share;
use crate::frames::FrameBoundary;
use crate::metrics::Held;

/// A connection that can acknowledge each TCP segment at once.
///
/// Hosts leave Nagle's algorithm on and write small frames separately; the second one then waits for the acknowledgement of
/// the first, which the kernel delays by up to 40 ms. `TCP_QUICKACK` stops that, but is not sticky: it is set again after
/// every read (`spec/scheduling.md` 14).
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    /// Bytes that the HTTP parser had read beyond an upgrade request.
    unread: Bytes,
    acknowledge_at_once: bool,
    /// Bytes that were read since the upgrade.
    received: u64,
    /// Bytes that the other end's kernel, or ours on its behalf, has taken.
    sent: u64,
    /// No more is read once this many bytes were.
    read_until: Option<u64>,
    messages: Option<Messages>,
    /// Its place in the count of open connections.
    _open: Option<Held>,
}

/// The WebSocket messages that come over a connection.
#[derive(Debug)]
struct Messages {
    frames: FrameBoundary,
    /// What the codec holds of unfinished messages. It grows with them and is given back when the codec is put away, because
    /// the codec's buffer stays as large as the largest of them.
    held: Share,
    /// More has come than may be held.
    exceed: bool,
}

impl Messages {
    fn advance(&mut self, bytes: &[u8]) {
        self.frames.advance(bytes);
        let more = self.frames.unfinished_bytes().saturating_sub(self.held.bytes());
        // What comes whole is never counted, which is most.
        if more > 0 {
            self.exceed |= self.held.grow(more).is_err();
        }
    }
}

/// What has come over a connection since it was upgraded, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// All of it.
    pub(crate) bytes: u64,
    /// That which belongs to WebSocket messages.
    pub(crate) carried: u64,
    /// What is held for a message of which more is to come; 0 between two messages.
    pub(crate) held: u64,
}

/// Enough for a pong and for most of the messages that end a long silence.
const FIRST_READ_BYTES: usize = 64;

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    /// A client in this process; also what tests with virtual time need, which real sockets know nothing of.
    Memory(DuplexStream),
    /// The connection was taken out.
    Nothing(Empty),
}

impl Transport {
    fn io(&mut self) -> Pin<&mut dyn ByteStream> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp),
            Self::Memory(pipe) => Pin::new(pipe),
            Self::Nothing(nothing) => Pin::new(nothing),
        }
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Unpin {}
impl ByteStream for TcpStream {}
impl ByteStream for DuplexStream {}
impl ByteStream for Empty {}

impl ClientStream {
    /// Wraps an accepted connection.
    pub fn new(tcp: TcpStream) -> Self {
        Self::over(Transport::Tcp(tcp))
    }

    /// Wraps one end of a pipe within this process.
    pub fn in_memory(pipe: DuplexStream) -> Self {
        Self::over(Transport::Memory(pipe))
    }

    /// Counts the connection as open for as long as it exists, an upgrade included.
    pub fn counted(mut self, open: Held) -> Self {
        self._open = Some(open);
        self
    }

    fn over(transport: Transport) -> Self {
        Self {
            transport,
            unread: Bytes::new(),
            acknowledge_at_once: false,
            received: 0,
            sent: 0,
            read_until: None,
            messages: None,
            _open: None,
        }
    }

    /// After an upgrade: gives back what was read too far, and acknowledges each segment at once from here on.
    pub(crate) fn upgraded(mut self, unread: Bytes) -> Self {
        // Even an empty rest keeps the parser's whole buffer alive, for as long as the socket is open.
        self.unread = if unread.is_empty() { Bytes::new() } else { unread };
        self.acknowledge_at_once = true;
        self.arm_quick_ack();
        self
    }

    /// What was read since the upgrade: it shows that the other end is there.
    pub(crate) fn received(&self) -> Received {
        let Some(Messages { frames, held, .. }) = &self.messages else {
            return Received { bytes: self.received, ..Received::default() };
        };
        let held = if frames.is_between_messages() { 0 } else { held.bytes() };
        Received { bytes: self.received, carried: frames.carried_bytes(), held }
    }

    /// Bytes written so far: what shows that the other end takes them.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Leaves everything beyond the next `bytes`, roughly, in the socket. `None`: reads all there is.
    pub(crate) fn read_at_most(&mut self, bytes: Option<u64>) {
        self.read_until = bytes.map(|bytes| self.received + bytes);
    }

    /// Whether more may have come than may be read now.
    pub(crate) fn is_held_back(&self) -> bool {
        self.read_until.is_some_and(|limit| self.received >= limit) || self.messages_exceed_their_share()
    }

    /// Keeps account of WebSocket messages from here on. What is held of unfinished ones counts towards a share; when that
    /// cannot grow any more, nothing more is read.
    pub(crate) fn follow_messages(&mut self, held: Share) {
        self.messages = Some(Messages { frames: FrameBoundary::default(), held, exceed: false });
    }

    /// Takes what comes from here on for bytes without meaning.
    pub(crate) fn stop_following(&mut self) {
        self.messages = None;
    }

    /// Whether all messages that were begun are complete.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.frames.is_between_messages())
    }

    /// Whether more of an unfinished message has come than may be held.
    pub(crate) fn messages_exceed_their_share(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.exceed)
    }

    /// Of complete messages nothing is held here any more.
    pub(crate) fn release_complete(&mut self) {
        if let Some(Messages { frames, held, .. }) = &mut self.messages {
            held.shrink(held.bytes().saturating_sub(frames.unfinished_bytes()));
        }
    }

    /// Takes the connection out, with all that is known of it.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::over(Transport::Nothing(empty())))
    }

    /// Waits until there is something to read, or the end, without a buffer worth mentioning. Cancel-safe.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            let mut first = [0; FIRST_READ_BYTES];
            let mut buf = ReadBuf::new(&mut first);
            poll_fn(|cx| if self.is_held_back() { Poll::Pending } else { self.transport.io().poll_read(cx, &mut buf) }).await?;
            self.unread = Bytes::copy_from_slice(buf.filled());
            self.arm_quick_ack();
        }
        Ok(())
    }

    fn count_received(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        if let Some(messages) = &mut self.messages {
            messages.advance(bytes);
        }
    }

    fn count_sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent += bytes as u64;
        }
        written
    }

    fn arm_quick_ack(&self) {
        #[cfg(target_os = "linux")]
        if let (true, Transport::Tcp(tcp)) = (self.acknowledge_at_once, &self.transport) {
            // A failure costs latency only.
            let _ = socket2::SockRef::from(tcp).set_tcp_quickack(true);
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_held_back() {
            // Whoever lifts the limit polls again.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..taken]);
            self.unread.advance(taken);
            if self.unread.is_empty() {
                self.unread = Bytes::new();
            }
            self.count_received(&buf.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        let polled = self.transport.io().poll_read(cx, buf);
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            self.count_received(read);
            self.arm_quick_ack();
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.transport.io().poll_write(cx, buf);
        self.count_sent(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = self.transport.io().poll_write_vectored(cx, bufs);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.is_write_vectored(),
            Transport::Memory(pipe) => pipe.is_write_vectored(),
            Transport::Nothing(nothing) => nothing.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.io().poll_shutdown(cx)
    }
}
