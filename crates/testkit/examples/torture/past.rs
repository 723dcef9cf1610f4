//! The past of an actor's tables: what they were at some times, and going back there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::churn::try_post;
use crate::ledger::Checked;
use crate::sql::{SqlWriter, Tables, Write};
use crate::writer::Writer;

/// How long the engine keeps the past of a database, in milliseconds.
pub(crate) const WINDOW_MS: u64 = 5_000;
/// Times that are remembered of each actor.
const REMEMBERED: usize = 4;

/// What the tables of one actor were.
#[derive(Default)]
pub(crate) struct Past {
    /// Oldest first: at a time in milliseconds since 1970, after all that was written before.
    times: VecDeque<(u64, Tables)>,
    /// How often the engine has said that it has gone back.
    restores: u64,
}

impl Past {
    pub(crate) fn restores(&self) -> u64 {
        self.restores
    }

    pub(crate) fn remember(&mut self, at: u64, tables: Tables) {
        self.times.push_back((at, tables));
        if self.times.len() > REMEMBERED {
            self.times.pop_front();
        }
    }

    /// Has the engine go back to one of these times after the other, until it does not answer.
    pub(crate) async fn restore(
        &mut self,
        writer: &mut SqlWriter,
        address: SocketAddr,
        random: &mut StdRng,
        mut down: watch::Receiver<bool>,
    ) -> Checked {
        while let Some((at, tables)) = self.times.get(random.random_range(0..self.times.len().max(1))) {
            let path = format!("/actors/{}/restore?namespace=default", writer.actor_id());
            writer.ledger().sent(Write::Restore(tables.clone()));
            let body = json!({ "at": at });
            let answer = tokio::select! {
                answer = try_post(address, &path, &body) => answer,
                _ = down.wait_for(|down| *down) => None,
            };
            let Some(answer) = answer else { return Ok(()) };
            if answer.status == StatusCode::OK {
                writer.ledger().acknowledged();
                self.restores += 1;
            } else if answer.error().1 == "actor.history_too_short" && now_ms() > at + WINDOW_MS {
                writer.ledger().refused("too long ago");
            } else {
                return Err(writer.ledger().violation(&format!("cannot go back to {at}: {}", answer.text())));
            }
        }
        Ok(())
    }
}

/// A time after everything that has happened, and before everything that comes.
pub(crate) async fn between() -> u64 {
    let now = now_ms();
    while now_ms() == now {
        sleep(Duration::from_millis(1)).await;
    }
    now
}

fn now_ms() -> u64 {
    u64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()).expect("a time in this era")
}
