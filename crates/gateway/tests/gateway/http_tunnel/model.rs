//! Everything at random: sizes, credit, pace and ends (`spec/gateway.md` 14.2).

use http_body_util::BodyExt;
use proptest::prelude::*;
use protocol::envoy::{HttpStreamAbortReason, ResponseAbort, ResponseStart};

use super::*;

/// Sizes around the limits, and small ones.
fn piece_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![1..200_usize, CHUNK - 2..=CHUNK + 2, 1..300_000_usize]
}

/// Mostly no time at all.
fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => Just(0), 1 => 1..3000_u64].prop_map(Duration::from_millis)
}

/// How an exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    HostAborts,
    LinkLost,
    ClientLeaves,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![3 => Just(End::Whole), 1 => Just(End::HostAborts), 1 => Just(End::LinkLost), 1 => Just(End::ClientLeaves)]
}

/// Bytes that tell their place in a body.
fn content(from: usize, bytes: usize) -> Bytes {
    (from..from + bytes).map(|place| (place % 251) as u8).collect()
}

async fn rest_a_while(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

fn run(exchange: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(in_time(exchange));
}

/// A stream of these pieces, to a client that takes these pauses, with this end.
async fn download(pieces: Vec<usize>, pauses: Vec<Duration>, announces: bool, end: End) {
    let mut stage = Stage::new();
    let total: usize = pieces.iter().sum();
    let length = total.to_string();
    let headers = [("content-length", length.as_str())];
    let (request, client, mut body) = stage.stream(if announces { &headers } else { &[] }).await;
    let leaves_after = (end == End::ClientLeaves).then_some(pauses.len());
    let reader = tokio::spawn(async move {
        let (mut got, mut is_whole, mut frames) = (Vec::new(), false, 0);
        loop {
            rest_a_while(pauses[frames % pauses.len()]).await;
            frames += 1;
            if leaves_after == Some(frames) {
                break;
            }
            match in_time(body.frame()).await {
                Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().expect("data")),
                Some(Err(_)) => break,
                None => {
                    is_whole = true;
                    break;
                }
            }
        }
        drop((client, body));
        (got, is_whole)
    });
    let sent = produce(&mut stage, &request, &pieces, end).await;
    let (got, is_whole) = in_time(reader).await.unwrap();
    assert_eq!(got, content(0, got.len()), "what arrives is what was sent");
    match end {
        End::Whole => assert_eq!((got.len(), is_whole), (total, true)),
        End::HostAborts | End::LinkLost => assert!(got.len() <= sent && !is_whole),
        End::ClientLeaves => assert!(got.len() <= sent),
    }
    stage.scene.expect_no_leak().await;
}

/// Plays a host that keeps to the window, until the end. Returns how much it has sent.
async fn produce(stage: &mut Stage, request: &Request, pieces: &[usize], end: End) -> usize {
    let (mut sent, mut credited, mut updates, mut index) = (0, 0, 0, 0);
    for (place, piece) in pieces.iter().enumerate() {
        let is_last = place + 1 == pieces.len();
        if is_last && end == End::HostAborts {
            let reason = HttpStreamAbortReason { kind: Kind::HandlerError, detail: None };
            stage.host.send(request, index + 1, FromActor::ResponseAbort(ResponseAbort { reason }));
            return sent;
        }
        if is_last && end == End::LinkLost {
            stage.scene.lose_link(stage.actor, 1, &stage.host);
            return sent;
        }
        while sent + piece > credited + WINDOW {
            match stage.host.next().await {
                (id, ToActor::ResponseBodyWindowUpdate { consumed_bytes }) => {
                    updates += 1;
                    let consumed = consumed_bytes as usize;
                    assert_eq!(id.message_index, updates, "indices follow each other");
                    assert!(consumed > credited && consumed <= sent, "{credited} {consumed} {sent}");
                    credited = consumed;
                }
                (_, ToActor::RequestAbort(_)) if end == End::ClientLeaves => return sent,
                other => panic!("{other:?}"),
            }
        }
        index += 1;
        stage.host.chunk(request, index, content(sent, *piece), is_last);
        sent += piece;
    }
    sent
}

/// An upload of these pieces, to a host that takes these pauses before it returns credit, with this end.
async fn upload(pieces: Vec<usize>, pauses: Vec<Duration>, end: End) {
    let mut stage = Stage::new();
    let total: usize = pieces.iter().sum();
    let (sender, body) = Dictated::new();
    let (request, asked) = stage.upload(body).await;
    let mut from = 0;
    for piece in pieces {
        sender.send(content(from, piece)).unwrap();
        from += piece;
    }
    // A body whose end does not come.
    let unfinished = (end != End::Whole).then_some(sender);
    let (got, mut next_index) = consume(&mut stage, &request, &pauses, total, end == End::Whole).await;
    assert_eq!(got, content(0, total));
    let mut say = |stage: &Stage, kind| {
        stage.host.send(&request, next_index, kind);
        next_index += 1;
    };
    match end {
        End::Whole => {
            let headers = crate::scene::headers(&[]);
            let start = ResponseStart { status: 200, headers, body: Some("ok".into()), stream: false };
            say(&stage, FromActor::ResponseStart(start));
            assert_eq!(asked.answer().await.text(), "ok");
        }
        End::HostAborts => {
            let reason = HttpStreamAbortReason { kind: Kind::HandlerError, detail: None };
            say(&stage, FromActor::ResponseAbort(ResponseAbort { reason }));
            assert_eq!(asked.answer().await.error().0, 503);
        }
        End::LinkLost => {
            stage.scene.lose_link(stage.actor, 1, &stage.host);
            assert_eq!(asked.answer().await.error().0, 503);
        }
        End::ClientLeaves => {
            asked.leave().await;
            stage.expect_abort(Kind::Cancelled, "client disconnected during the request body").await;
        }
    }
    drop(unfinished);
    stage.scene.expect_no_leak().await;
}

/// Plays a host that returns credit when the gateway has been silent for one of these times, or by chance. Returns what came,
/// and the index of its next message.
async fn consume(stage: &mut Stage, request: &Request, pauses: &[Duration], total: usize, to_the_end: bool) -> (Vec<u8>, u16) {
    let (mut got, mut consumed, mut chunks, mut updates, mut has_ended) = (Vec::new(), 0, 0, 0, false);
    while got.len() < total || (to_the_end && !has_ended) {
        let pause = pauses[usize::from(chunks + updates) % pauses.len()];
        match stage.host.next_within(pause).await {
            Some((id, ToActor::RequestChunk(chunk))) => {
                chunks += 1;
                assert_eq!(id.message_index, chunks, "indices follow each other");
                assert!(chunk.body.len() <= CHUNK, "{}", chunk.body.len());
                got.extend_from_slice(&chunk.body);
                has_ended = chunk.finish;
                assert!(got.len() - consumed <= WINDOW, "{} bytes are outstanding", got.len() - consumed);
            }
            Some(other) => panic!("{other:?}"),
            None if consumed < got.len() => {
                consumed = got.len();
                stage.consume(request, updates, consumed);
                updates += 1;
            }
            None => crate::scene::settle().await,
        }
    }
    (got, updates)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn streams_arrive_as_they_were_sent(
        pieces in prop::collection::vec(piece_bytes(), 1..40),
        pauses in prop::collection::vec(pause(), 1..8),
        announces in any::<bool>(),
        end in end(),
    ) {
        run(download(pieces, pauses, announces, end));
    }

    #[test]
    fn uploads_arrive_as_they_were_sent(
        pieces in prop::collection::vec(piece_bytes(), 1..40),
        pauses in prop::collection::vec(pause(), 1..8),
        end in end(),
    ) {
        run(upload(pieces, pauses, end));
    }
}
