//! The socket of a client or a host.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection that can acknowledge each segment at once.
///
/// Hosts leave Nagle's algorithm on and write small frames separately; the second one then waits for the acknowledgement of
/// the first, which the kernel delays by up to 40 ms. `TCP_QUICKACK` stops that, but is not sticky: it is set again after
/// every read (`spec/scheduling.md` 14).
#[derive(Debug)]
pub struct ClientStream {
    tcp: TcpStream,
    /// Bytes that the HTTP parser had read beyond an upgrade request.
    unread: Bytes,
    acknowledge_at_once: bool,
}

impl ClientStream {
    /// Wraps an accepted connection.
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, unread: Bytes::new(), acknowledge_at_once: false }
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
        if self.acknowledge_at_once {
            // A failure costs latency only.
            let _ = socket2::SockRef::from(&self.tcp).set_tcp_quickack(true);
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
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            self.arm_quick_ack();
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
