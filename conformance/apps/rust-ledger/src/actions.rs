//! The actions of the diary. Arguments are positional, as those of the npm package are: a tuple struct each.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use rivetkit::{Action, BindParam, Ctx, Handles, SqliteDbExt, SqliteTransactionOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rows::{bind, objects};
use crate::{Diary, Job};

const INSERT: &str = "INSERT INTO entry (n, body) VALUES (?, ?)";

/// Declares an action: its arguments, its name for clients, the method that carries it out, and what that returns.
macro_rules! action {
    ($arguments:ident $(($($argument:ty),*))?, $name:literal, $method:ident -> $output:ty) => {
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $arguments $(($($argument),*))?;

        impl Action for $arguments {
            type Output = $output;
            const NAME: &'static str = $name;
        }

        impl Handles<$arguments> for Diary {
            type Future = Pin<Box<dyn Future<Output = Result<$output>> + Send>>;

            fn handle(self: Arc<Self>, ctx: Ctx<Self>, arguments: $arguments) -> Self::Future {
                Box::pin(async move { self.$method(&ctx, arguments).await })
            }
        }
    };
}

action!(Whoami, "whoami", whoami -> Value);
action!(Note(String), "note", note -> usize);
action!(ReadMemory, "memory", memory -> Value);
action!(Insert(i64, String), "insert", insert -> i64);
action!(InsertMany(i64, i64, String, bool), "insertMany", insert_many -> i64);
action!(Select(Vec<Value>), "select", select -> Vec<BTreeMap<String, Value>>);
action!(Put(String, String), "put", put -> String);
action!(Get(String), "get", get -> Option<String>);
action!(Push(i64), "push", push -> i64);
action!(Plan(u64, String), "plan", plan -> u64);
action!(Ring(String), "ring", ring -> String);
action!(Nap, "nap", nap -> bool);

pub(crate) type All = (Whoami, Note, ReadMemory, Insert, InsertMany, Select, Put, Get, Push, Plan, Ring, Nap);

/// What the npm package puts before each key; the crate stores keys as they are.
const KEY_PREFIX: u8 = 4;

fn stored_key(key: &str) -> Vec<u8> {
    [&[KEY_PREFIX], key.as_bytes()].concat()
}

impl Diary {
    async fn whoami(&self, ctx: &Ctx<Self>, _: Whoami) -> Result<Value> {
        let wakes = ctx.state().wakes;
        Ok(json!({ "wakes": wakes, "instance": self.instance, "pid": process::id(), "id": ctx.actor_id() }))
    }

    /// Durable when this returns.
    async fn note(&self, ctx: &Ctx<Self>, Note(text): Note) -> Result<usize> {
        ctx.state_mut().notes.push(text);
        ctx.save_state(vec![ctx.encode_state_delta()?]).await?;
        Ok(ctx.state().notes.len())
    }

    async fn memory(&self, ctx: &Ctx<Self>, _: ReadMemory) -> Result<Value> {
        let state = ctx.state();
        Ok(json!({ "notes": state.notes, "rung": state.rung, "jobs": state.jobs }))
    }

    async fn insert(&self, ctx: &Ctx<Self>, Insert(n, body): Insert) -> Result<i64> {
        ctx.sql().execute(INSERT, Some(vec![BindParam::Integer(n), BindParam::Text(body)])).await?;
        Ok(n)
    }

    /// Inserts rows `first` to `last`, and fails at the end if it is told to: all of them or none.
    async fn insert_many(&self, ctx: &Ctx<Self>, InsertMany(first, last, body, fail): InsertMany) -> Result<i64> {
        let insert_all = async |transaction: rivetkit::SqliteTransaction| {
            for n in first..=last {
                let row = vec![BindParam::Integer(n), BindParam::Text(body.clone())];
                transaction.execute(INSERT, Some(row)).await?;
            }
            if fail {
                bail!("rolled back on purpose");
            }
            Ok(last - first + 1)
        };
        ctx.sql().transaction(insert_all, SqliteTransactionOptions::default()).await
    }

    async fn select(&self, ctx: &Ctx<Self>, Select(words): Select) -> Result<Vec<BTreeMap<String, Value>>> {
        let [Value::String(statement), values @ ..] = words.as_slice() else { bail!("the statement comes first") };
        let values = values.iter().map(bind).collect::<Result<Vec<BindParam>>>()?;
        objects(ctx.sql().query(statement.as_str(), Some(values)).await?)
    }

    #[expect(deprecated, reason = "deprecated is not gone")]
    async fn put(&self, ctx: &Ctx<Self>, Put(key, value): Put) -> Result<String> {
        ctx.kv().put(&stored_key(&key), value.as_bytes()).await?;
        Ok(key)
    }

    #[expect(deprecated, reason = "deprecated is not gone")]
    async fn get(&self, ctx: &Ctx<Self>, Get(key): Get) -> Result<Option<String>> {
        let value = ctx.kv().get(&stored_key(&key)).await?;
        Ok(value.map(String::from_utf8).transpose()?)
    }

    async fn push(&self, ctx: &Ctx<Self>, Push(job): Push) -> Result<i64> {
        ctx.queue().send("jobs", &Job(job)).await?;
        Ok(job)
    }

    /// The time in milliseconds from which on `ring` is due.
    async fn plan(&self, ctx: &Ctx<Self>, Plan(ms, label): Plan) -> Result<u64> {
        let wait = Duration::from_millis(ms);
        let due = SystemTime::now().duration_since(UNIX_EPOCH)? + wait;
        let mut arguments = Vec::new();
        ciborium::into_writer(&(label,), &mut arguments)?;
        ctx.schedule().after(wait, Ring::NAME, &arguments).await?;
        Ok(u64::try_from(due.as_millis())?)
    }

    async fn ring(&self, ctx: &Ctx<Self>, Ring(label): Ring) -> Result<String> {
        ctx.state_mut().rung.push(label.clone());
        Ok(label)
    }

    async fn nap(&self, ctx: &Ctx<Self>, _: Nap) -> Result<bool> {
        ctx.sleep()?;
        Ok(true)
    }
}
