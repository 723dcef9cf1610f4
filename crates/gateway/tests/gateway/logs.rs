//! What operators read when a host breaks the protocol (`spec/gateway.md` 14.2 and 14.4).

use std::io::Write;
use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::scene::{RAY, Scene, get};

/// Collects what this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// The only line that says this.
    fn line(&self, about: &str) -> String {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(about)).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_gap_is_logged_with_all_that_is_needed_to_find_its_cause() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let mut client = scene.connect().await;
    let served = async {
        let (request, _start) = host.expect_request().await;
        host.start_stream(&request, 200, &[]);
        request
    };
    let (head, request) = tokio::join!(client.begin(get(&format!("/gateway/{actor}/x"))), served);
    host.chunk(&request, 3, "too early", false);
    assert!(head.unwrap().into_body().collect().await.is_err(), "the stream is cut");
    let line = log.line("response message index gap");
    let fields = [
        "ERROR".to_owned(),
        format!("actor_id={actor}"),
        format!("request_id={:08x}", u32::from_be_bytes(request.id.request_id.0)),
        format!("ray={RAY}"),
        "expected=1".to_owned(),
        "got=3".to_owned(),
    ];
    for field in fields {
        assert!(line.contains(&field), "{field} is not in {line}");
    }
    scene.expect_no_leak().await;
}
