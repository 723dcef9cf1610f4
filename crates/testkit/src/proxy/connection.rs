//! One connection through the proxy: its two sockets and what moves between them.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::{Direction, Fault};
use super::lane::{Lane, SenderEnd, Verdict};
use super::overtaking::{Overtaking, Place};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// After a cut, bytes that are still coming are thrown away for so long: closing on unread bytes would make it a reset.
const CUT_LINGER: Duration = Duration::from_secs(1);

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Both sides have closed.
    Finished,
    /// A fault has closed both sides.
    Cut,
    /// A fault or one of the sides has reset it.
    Reset,
    /// The server cannot be reached.
    Unreachable,
}

/// What others see of a direction, and how they change it.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) fault: watch::Sender<Fault>,
    passed_bytes: AtomicU64,
}

impl Control {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault: watch::Sender::new(fault), passed_bytes: AtomicU64::new(0) }
    }

    /// Bytes that have arrived.
    pub(super) fn passed_bytes(&self) -> u64 {
        self.passed_bytes.load(Ordering::Relaxed)
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Controls {
    pub(super) up: Control,
    pub(super) down: Control,
}

impl Controls {
    pub(super) fn of(&self, direction: Direction) -> &Control {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// Both directions' meeting points with other connections.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    pub(super) up: Overtaking,
    pub(super) down: Overtaking,
}

/// Carries bytes until the connection has ended.
pub(super) async fn run(client: TcpStream, server: TcpStream, controls: &Controls, crossing: &Crossing) -> Ending {
    let up = Flow { from: &client, to: &server, control: &controls.up, back: &controls.down };
    let down = Flow { from: &server, to: &client, control: &controls.down, back: &controls.up };
    let ending = both(up.carry(&crossing.up), down.carry(&crossing.down), &client, &server).await;
    match ending {
        Ending::Cut => cut(&client, &server).await,
        Ending::Reset => reset([&client, &server]),
        Ending::Finished | Ending::Unreachable => {}
    }
    ending
}

/// Closes a connection with a reset instead of an end.
pub(super) fn reset<const N: usize>(sockets: [&TcpStream; N]) {
    for socket in sockets {
        // Fails only on a socket that has ended already.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

async fn both(
    up: impl Future<Output = Verdict>,
    down: impl Future<Output = Verdict>,
    client: &TcpStream,
    server: &TcpStream,
) -> Ending {
    tokio::pin!(up, down);
    let (mut up_is_over, mut down_is_over) = (false, false);
    while !(up_is_over && down_is_over) {
        let (verdict, receiver) = tokio::select! {
            verdict = &mut up, if !up_is_over => {
                up_is_over = true;
                (verdict, server)
            }
            verdict = &mut down, if !down_is_over => {
                down_is_over = true;
                (verdict, client)
            }
        };
        match verdict {
            Verdict::Finish => finish(receiver),
            Verdict::Forget => {}
            Verdict::Cut => return Ending::Cut,
            Verdict::Reset => return Ending::Reset,
        }
    }
    Ending::Finished
}

fn finish(receiver: &TcpStream) {
    // Fails when the receiver has gone, which the other direction notices.
    let _ = SockRef::from(receiver).shutdown(Shutdown::Write);
}

async fn cut(client: &TcpStream, server: &TcpStream) {
    finish(client);
    finish(server);
    let drained = async { tokio::join!(drain(client), drain(server)) };
    let _ = timeout(CUT_LINGER, drained).await;
}

async fn drain(socket: &TcpStream) {
    let mut buffer = BytesMut::new();
    while matches!(read(socket, &mut buffer).await, Ok(count) if count > 0) {
        buffer.clear();
    }
}

/// One direction.
struct Flow<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    control: &'a Control,
    /// The other direction, in which the sender would hear of its receiver's end.
    back: &'a Control,
}

impl Flow<'_> {
    async fn carry(self, overtaking: &Overtaking) -> Verdict {
        let mut faults = self.control.fault.subscribe();
        let mut lane = Lane::new(*faults.borrow_and_update(), Instant::now());
        let mut place = Place::new(overtaking);
        let mut buffer = BytesMut::new();
        loop {
            let now = Instant::now();
            let step = lane.step(now);
            if let Some(verdict) = step.verdict {
                return verdict;
            }
            tokio::select! {
                // A fault that was set before something came applies to it.
                biased;
                changed = faults.changed() => match changed {
                    Ok(()) => lane.set(*faults.borrow_and_update(), Instant::now()),
                    Err(_) => return Verdict::Cut,
                },
                () = place.overtaken() => lane.release(Instant::now()),
                written = write(self.to, lane.front(step.may_write)), if step.may_write > 0 => match written {
                    Ok(count) => {
                        if lane.wrote(count, Instant::now()) {
                            place.passed();
                        }
                        self.control.passed_bytes.store(lane.passed_bytes(), Ordering::Relaxed);
                    }
                    // No news of that gets through: whatever is sent goes nowhere.
                    Err(_) if *self.back.fault.borrow() == Fault::HalfOpen => lane.set(Fault::HalfOpen, Instant::now()),
                    Err(_) => return Verdict::Reset,
                },
                count = read(self.from, &mut buffer), if step.may_read => match count {
                    Ok(0) => lane.ended(SenderEnd::Finished, Instant::now()),
                    Ok(_) => {
                        let overtakes = matches!(lane.fault(), Fault::Overtaken { .. }) && place.arrived();
                        lane.sent(buffer.split().freeze(), overtakes, Instant::now());
                    }
                    Err(_) => lane.ended(SenderEnd::Reset, Instant::now()),
                },
                () = sleep_until(step.wake_at.unwrap_or(now)), if step.wake_at.is_some() => {}
            }
        }
    }
}

/// Reads what there is; 0 at the end. Cancel-safe.
async fn read(socket: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        buffer.reserve(READ_BYTES);
        match socket.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => {
                acknowledge(socket);
                return other;
            }
        }
    }
}

/// A sender that writes small pieces waits for each one's acknowledgement, which the kernel holds back by up to 40 ms: a
/// delay that nobody has asked for.
fn acknowledge(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    // A failure costs time only.
    let _ = SockRef::from(socket).set_tcp_quickack(true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// Writes as much as fits. Cancel-safe.
async fn write(socket: &TcpStream, bytes: Bytes) -> io::Result<usize> {
    loop {
        socket.writable().await?;
        match socket.try_write(&bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
