//! The socket of a client or a host.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

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
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    /// A client in this process; also what tests with virtual time need, which real sockets know nothing of.
    Memory(DuplexStream),
}

impl Transport {
    fn io(&mut self) -> Pin<&mut dyn ByteStream> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp),
            Self::Memory(pipe) => Pin::new(pipe),
        }
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Unpin {}
impl ByteStream for TcpStream {}
impl ByteStream for DuplexStream {}

impl ClientStream {
    /// Wraps an accepted connection.
    pub fn new(tcp: TcpStream) -> Self {
        Self::over(Transport::Tcp(tcp))
    }

    /// Wraps one end of a pipe within this process.
    pub fn in_memory(pipe: DuplexStream) -> Self {
        Self::over(Transport::Memory(pipe))
    }

    fn over(transport: Transport) -> Self {
        Self { transport, unread: Bytes::new(), acknowledge_at_once: false }
    }

    /// After an upgrade: gives back what was read too far, and acknowledges each segment at once from here on.
    pub(crate) fn upgraded(mut self, unread: Bytes) -> Self {
        self.unread = unread;
        self.acknowledge_at_once = true;
        self.arm_quick_ack();
        self
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
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..taken]);
            self.unread.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = self.transport.io().poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            self.arm_quick_ack();
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.transport.io().poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.transport.io().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.is_write_vectored(),
            Transport::Memory(pipe) => pipe.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.io().poll_shutdown(cx)
    }
}
