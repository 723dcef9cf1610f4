//! For tests: a scripted host ("envoy"), plain HTTP and WebSocket clients, and a proxy that misbehaves, over real sockets.
//! With the feature `simulation`: the engine's control plane in a made-up world, without any socket.
//!
//! Whatever is waited for has a deadline, and a test that waits in vain says for what: these tools panic, with the last
//! messages seen, where a product would return an error.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

pub mod client;
pub mod envoy;
pub mod process;
pub mod proxy;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod websocket;

use std::future::Future;
use std::time::Duration;

/// Longest time that anything is waited for. Far above what a healthy engine takes, so that a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for something, at most [`PATIENCE`].
///
/// # Panics
/// When it does not happen in time, with `what` in the message.
pub async fn in_time<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happening).await {
        Ok(happened) => happened,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks again and again, until there is an answer. For states that nobody announces.
///
/// # Panics
/// As [`in_time`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    in_time(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
