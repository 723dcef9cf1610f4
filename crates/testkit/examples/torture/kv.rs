//! A writer of key-value pairs: batches, deletions, and batches that must be refused as a whole.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use protocol::envoy::{KvListQuery, KvRequestData, KvResponseData, ToEnvoy, ToRivet, ToRivetKvRequest};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::sync::watch;

use crate::host::{Place, Running};
use crate::ledger::{Checked, Content, Counts, Ledger, Violation};
use crate::writer::{Pending, Taken, Writer};

/// Keys that are written, read and deleted.
const KEYS: u32 = 200;
const BATCH_MAX: usize = 20;
const VALUE_MAX_BYTES: usize = 2_000;
/// Of a few.
const LARGE_VALUE_BYTES: usize = 100_000;
const LONG_KEY_BYTES: usize = 2_048;

/// Pairs of one actor.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Pairs(BTreeMap<Bytes, Bytes>);

#[derive(Clone)]
pub(crate) enum Write {
    Put(Vec<(Bytes, Bytes)>),
    Delete(Vec<Bytes>),
    DeleteRange(Bytes, Bytes),
    Drop,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(pairs) => {
                write!(f, "put")?;
                pairs.iter().try_for_each(|(key, value)| write!(f, " {}={}", shown(key), brief(value)))
            }
            Self::Delete(keys) => {
                write!(f, "delete")?;
                keys.iter().try_for_each(|key| write!(f, " {}", shown(key)))
            }
            Self::DeleteRange(start, end) => write!(f, "delete from {} to {}", shown(start), shown(end)),
            Self::Drop => write!(f, "drop"),
        }
    }
}

/// A key, without what makes a long one long.
fn shown(key: &[u8]) -> String {
    const SHOWN: usize = 7;
    format!("{:?}", String::from_utf8_lossy(&key[..key.len().min(SHOWN)]))
}

/// The beginning of a value, and its length.
fn brief(value: &[u8]) -> String {
    const SHOWN: usize = 3;
    let beginning: String = value.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    format!("{beginning}..({})", value.len())
}

impl Content for Pairs {
    type Write = Write;

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(pairs) => self.0.extend(pairs.iter().cloned()),
            Write::Delete(keys) => keys.iter().for_each(|key| drop(self.0.remove(key))),
            Write::DeleteRange(start, end) => self.0.retain(|key, _| key < start || key >= end),
            Write::Drop => self.0.clear(),
        }
    }

    fn difference(&self, found: &Self) -> String {
        const TOLD: usize = 6;
        let missing = self.0.iter().filter(|(key, _)| !found.0.contains_key(*key));
        let missing = missing.map(|(key, value)| format!("{}={} is missing", shown(key), brief(value)));
        let others = found.0.iter().filter(|(key, value)| self.0.get(*key) != Some(*value));
        let others = others.map(|(key, value)| match self.0.get(key) {
            Some(wanted) => format!("{}={} instead of {}", shown(key), brief(value), brief(wanted)),
            None => format!("{}={} is too much", shown(key), brief(value)),
        });
        let all: Vec<String> = missing.chain(others).collect();
        format!("{} differences: {}", all.len(), all[..all.len().min(TOLD)].join(", "))
    }
}

/// What was asked and is not answered.
pub(crate) enum Asked {
    Write,
    /// A request that must not succeed.
    Impossible,
    Read(Vec<Bytes>),
}

/// The one writer of an actor's pairs.
pub(crate) struct KvWriter {
    actor_id: String,
    actor: watch::Receiver<Place>,
    ledger: Ledger<Pairs>,
    random: StdRng,
}

impl KvWriter {
    pub(crate) fn new(actor_id: &str, actor: watch::Receiver<Place>, random: StdRng) -> Self {
        let ledger = Ledger::new(&format!("pairs of actor {actor_id}"), Pairs::default());
        Self { actor_id: actor_id.to_owned(), actor, ledger, random }
    }

    fn ask(&self, running: &Running, data: KvRequestData) -> Pending {
        let actor_id = self.actor_id.clone();
        running.host.ask(|request_id| ToRivet::KvRequest(ToRivetKvRequest { actor_id, request_id, data }))
    }

    fn write(&mut self, write: Write) -> (Asked, KvRequestData) {
        let data = match write.clone() {
            Write::Put(pairs) => {
                let (keys, values) = pairs.into_iter().unzip();
                KvRequestData::Put { keys, values }
            }
            Write::Delete(keys) => KvRequestData::Delete { keys },
            Write::DeleteRange(start, end) => KvRequestData::DeleteRange { start, end },
            Write::Drop => KvRequestData::Drop,
        };
        self.ledger.sent(write);
        (Asked::Write, data)
    }

    /// A batch with something good and something that no batch may have.
    fn impossible(&mut self) -> KvRequestData {
        let (mut keys, mut values): (Vec<Bytes>, Vec<Bytes>) = self.batch().into_iter().unzip();
        match self.random.random_range(0..3) {
            0 => {
                keys.push(vec![b'x'; LONG_KEY_BYTES + 1].into());
                values.push(self.value(1));
            }
            1 => {
                keys.push(self.key());
                values.push(vec![0; 128 * 1024 + 1].into());
            }
            _ => {
                keys.extend((keys.len()..129).map(|number| Bytes::from(format!("many {number}"))));
                values.resize(keys.len(), Bytes::from_static(b"x"));
            }
        }
        KvRequestData::Put { keys, values }
    }

    fn batch(&mut self) -> Vec<(Bytes, Bytes)> {
        let count = self.random.random_range(1..=BATCH_MAX);
        (0..count).map(|_| (self.key(), self.any_value())).collect()
    }

    fn keys(&mut self) -> Vec<Bytes> {
        let count = self.random.random_range(1..=BATCH_MAX / 2);
        (0..count).map(|_| self.key()).collect()
    }

    /// Some of the keys are as long as keys may be.
    fn key(&mut self) -> Bytes {
        let number = self.random.random_range(0..KEYS);
        let mut key = format!("key {number:03} ").into_bytes();
        if number.is_multiple_of(10) {
            key.resize(LONG_KEY_BYTES, b'.');
        }
        key.into()
    }

    fn any_value(&mut self) -> Bytes {
        let bytes = match self.random.random_range(0..100) {
            0 => LARGE_VALUE_BYTES,
            _ => self.random.random_range(0..=VALUE_MAX_BYTES),
        };
        self.value(bytes)
    }

    fn value(&mut self, bytes: usize) -> Bytes {
        let mut value = vec![0; bytes];
        self.random.fill_bytes(&mut value);
        value.into()
    }

    /// A read sees what was asked for before it, and nothing that comes after it.
    fn compare(&mut self, keys: &[Bytes], found: &BTreeMap<Bytes, Bytes>) -> Checked {
        let known = &self.ledger.known().0;
        let wanted = keys.iter().filter_map(|key| Some((key.clone(), known.get(key)?.clone()))).collect();
        if *found == wanted {
            self.ledger.read_compared();
            return Ok(());
        }
        let difference = Pairs(wanted).difference(&Pairs(found.clone()));
        Err(self.ledger.violation(&format!("a read is wrong: {difference}")))
    }
}

impl Writer for KvWriter {
    type Asked = Asked;
    type Content = Pairs;

    fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    fn ledger(&mut self) -> &mut Ledger<Pairs> {
        &mut self.ledger
    }

    fn actor(&mut self) -> &mut watch::Receiver<Place> {
        &mut self.actor
    }

    fn begin(&mut self) {}

    fn ask_next(&mut self, running: &Running) -> (Asked, Pending) {
        let (asked, data) = match self.random.random_range(0..100) {
            0..60 => {
                let batch = self.batch();
                self.write(Write::Put(batch))
            }
            60..72 => {
                let keys = self.keys();
                self.write(Write::Delete(keys))
            }
            72..76 => {
                let (start, end) = (self.key(), self.key());
                self.write(Write::DeleteRange(start, end))
            }
            76 => self.write(Write::Drop),
            77..87 => (Asked::Impossible, self.impossible()),
            _ => {
                let mut keys = self.keys();
                keys.sort_unstable();
                keys.dedup();
                (Asked::Read(keys.clone()), KvRequestData::Get { keys })
            }
        };
        (asked, self.ask(running, data))
    }

    fn take(&mut self, asked: Asked, answer: ToEnvoy) -> Result<Taken, Violation> {
        match (asked, kv_answer(answer)) {
            (Asked::Write, Ok(_)) => self.ledger.acknowledged(),
            (Asked::Write, Err(why)) => {
                self.ledger.refused(&why);
                return Ok(Taken::Refused(why));
            }
            (Asked::Impossible, Ok(_)) => return Err(self.ledger.violation("an impossible batch was accepted")),
            (Asked::Impossible, Err(why)) => self.ledger.rightly_refused(&why),
            (Asked::Read(keys), Ok(KvResponseData::Get { keys: found, values, .. })) => {
                let found: BTreeMap<Bytes, Bytes> = found.into_iter().zip(values).collect();
                self.compare(&keys, &found)?;
            }
            (Asked::Read(_), Ok(other)) => return Err(self.ledger.violation(&format!("{other:?} instead of pairs"))),
            (Asked::Read(_), Err(why)) => return Ok(Taken::Refused(why)),
        }
        Ok(Taken::AsItShould)
    }

    fn ask_all(&self, running: &Running) -> Vec<Pending> {
        let list = KvRequestData::List { query: KvListQuery::All, reverse: None, limit: None };
        vec![self.ask(running, list)]
    }

    fn found(mut answers: Vec<ToEnvoy>) -> Result<Pairs, String> {
        let answer = kv_answer(answers.pop().ok_or("no answer")?)?;
        let KvResponseData::List { keys, values, .. } = answer else { return Err(format!("{answer:?} instead of a list")) };
        Ok(Pairs(keys.into_iter().zip(values).collect()))
    }
}

/// What an answer says, or the refusal in words.
fn kv_answer(answer: ToEnvoy) -> Result<KvResponseData, String> {
    let ToEnvoy::KvResponse { data, .. } = answer else { panic!("{answer:?} answers a key-value request") };
    if let KvResponseData::Error { message } = data { Err(message) } else { Ok(data) }
}
