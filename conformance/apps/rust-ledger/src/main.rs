//! The application of `apps/diary.mjs` on the published Rust crate `rivetkit`: the same actor, with the same name, state,
//! tables and actions, so that one can go on where the other has stopped.

mod actions;
mod rows;

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use rivetkit::{Actor, Ctx, QueueMessage, QueueNextOpts, Registry, action};
use serde::{Deserialize, Serialize};

/// What is kept besides the database.
#[derive(Serialize, Deserialize)]
struct Memory {
    wakes: u32,
    notes: Vec<String>,
    rung: Vec<String>,
    jobs: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
struct Job(i64);

impl QueueMessage for Job {
    type Reply = ();
    const NAME: &'static str = "jobs";
}

/// One instance of an actor, from its start to its sleep.
struct Diary {
    instance: String,
}

#[async_trait]
impl Actor for Diary {
    type State = Memory;
    type Input = ();
    type Actions = actions::All;
    type Events = ();
    type Queue = ();
    type ConnParams = ();
    type ConnState = ();
    type Action = action::Raw;

    const HAS_DATABASE: bool = true;

    async fn create_state(_: &Ctx<Self>, (): ()) -> Result<Memory> {
        Ok(Memory { wakes: 0, notes: Vec::new(), rung: Vec::new(), jobs: Vec::new() })
    }

    async fn create(ctx: &Ctx<Self>) -> Result<Self> {
        static INSTANCES: AtomicU32 = AtomicU32::new(0);
        ctx.sql().exec("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, body TEXT NOT NULL)").await?;
        ctx.state_mut().wakes += 1;
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { instance: format!("{}-{number}", process::id()) })
    }

    async fn run(self: Arc<Self>, ctx: Ctx<Self>) -> Result<()> {
        loop {
            let options = QueueNextOpts { completable: true, ..QueueNextOpts::default() };
            let Some(message) = ctx.queue().next_typed::<Job>(options).await? else { return Ok(()) };
            ctx.state_mut().jobs.push(message.body().0);
            message.complete(()).await?;
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut registry = Registry::new();
    registry.register_actor::<Diary>("diary");
    registry.start().await
}
