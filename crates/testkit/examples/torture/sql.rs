//! A writer of SQL that the engine executes: transactions in one request and over several, of every size, and such as fail
//! or are taken back. Its tables can also be put back to what they were.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use protocol::envoy::{
    SqliteBatchStatement, SqliteColumnValue, SqliteExecRequest, SqliteExecuteBatchRequest, SqliteExecuteRequest,
    SqliteExecuteResult, ToEnvoy, ToRivet,
};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::host::{Place, Running};
use crate::ledger::{Checked, Content, Counts, Ledger, Violation};
use crate::writer::{Pending, Taken, Writer, or_refusal};

const NAMESPACE: &str = "default";
/// Accounts between which money goes to and fro: its sum never changes.
const ACCOUNTS: i64 = 8;
const MONEY: i64 = 1_000;
const ROWS_MAX: i64 = 12;
/// More than one message could carry, if a host committed it.
const LARGE_ROWS: i64 = 340;
const LARGE_ROW_BYTES: i64 = 4_000;
/// Transactions that stay in the table.
const KEPT: i64 = 300;

const CREATE: &str = "BEGIN;
    CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, money INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS part (tx INTEGER, n INTEGER, parts INTEGER NOT NULL, body TEXT, PRIMARY KEY (tx, n))
        STRICT, WITHOUT ROWID;
    WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 7)
        INSERT OR IGNORE INTO account SELECT n, 1000 FROM number;
    COMMIT";
const READ_PARTS: &str =
    "SELECT tx, count(*), min(parts), max(parts), coalesce(sum(length(body)), 0) FROM part GROUP BY tx ORDER BY tx";
const READ_ACCOUNTS: &str = "SELECT id, money FROM account ORDER BY id";
const READ_SUM: &str = "SELECT count(*), (SELECT sum(money) FROM account) FROM part";

/// What the tables of one actor hold.
#[derive(Clone, PartialEq)]
pub(crate) struct Tables {
    accounts: Vec<i64>,
    /// Rows and bytes of each transaction.
    parts: BTreeMap<i64, (i64, i64)>,
}

impl Tables {
    fn new() -> Self {
        Self { accounts: vec![MONEY; ACCOUNTS as usize], parts: BTreeMap::new() }
    }

    fn transact(&mut self, done: &Transaction) {
        self.accounts[done.from as usize] -= done.amount;
        self.accounts[done.to as usize] += done.amount;
        self.parts.retain(|tx, _| *tx > done.tx - KEPT);
        if done.bytes > 0 {
            // Makes room for itself.
            self.parts.values_mut().for_each(|(_, bytes)| *bytes = 0);
        }
        self.parts.insert(done.tx, (done.rows, done.rows * done.bytes));
    }
}

/// A transaction: it adds rows, moves money, and forgets rows of long ago.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    tx: i64,
    rows: i64,
    /// Of each row.
    bytes: i64,
    from: i64,
    to: i64,
    amount: i64,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} transactions up to {:?}", self.parts.len(), self.parts.keys().next_back())
    }
}

/// What becomes of the tables at once.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Transaction(Transaction),
    /// They are what they were at some time.
    Restore(Tables),
}

impl Content for Tables {
    type Write = Write;

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Transaction(transaction) => self.transact(transaction),
            Write::Restore(past) => self.clone_from(past),
        }
    }

    fn difference(&self, found: &Self) -> String {
        let wrong = |tx: &&i64| self.parts.get(tx) != found.parts.get(tx);
        let told: Vec<String> = self
            .parts
            .keys()
            .chain(found.parts.keys().filter(|tx| !self.parts.contains_key(tx)))
            .filter(wrong)
            .map(|tx| format!("{tx}: {:?} instead of {:?}", found.parts.get(tx), self.parts.get(tx)))
            .collect();
        format!("accounts {:?} instead of {:?}, transactions {}", found.accounts, self.accounts, told.join(", "))
    }
}

impl Transaction {
    /// Its statements, one after another.
    fn statements(&self) -> Vec<String> {
        let Self { tx, rows, bytes, from, to, amount } = self;
        let body = if *bytes > 0 { format!("printf('%.*c', {bytes}, 'x')") } else { "NULL".to_owned() };
        let mut statements = vec![
            format!("UPDATE account SET money = money - {amount} WHERE id = {from}"),
            format!("DELETE FROM part WHERE tx <= {}", tx - KEPT),
        ];
        if *bytes > 0 {
            statements.push("UPDATE part SET body = NULL WHERE body IS NOT NULL".to_owned());
        }
        statements.push(format!(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows}) \
             INSERT INTO part (tx, n, parts, body) SELECT {tx}, n, {rows}, {body} FROM number"
        ));
        statements.push(format!("UPDATE account SET money = money + {amount} WHERE id = {to}"));
        statements
    }
}

/// What is to be asked next.
enum Step {
    Batch(Transaction),
    /// One statement of a transaction in several requests.
    Statement(String),
    Commit(Transaction),
    /// A batch whose last statement fails.
    FailingBatch(Transaction),
    Read,
}

/// What was asked and is not answered.
pub(crate) enum Asked {
    Write,
    Part,
    Impossible,
    Read,
}

/// The one writer of an actor's tables.
pub(crate) struct SqlWriter {
    actor_id: String,
    actor: watch::Receiver<Place>,
    ledger: Ledger<Tables>,
    random: StdRng,
    next_tx: i64,
    /// Steps that belong together and were not asked yet.
    script: VecDeque<Step>,
}

impl SqlWriter {
    pub(crate) fn new(actor_id: &str, actor: watch::Receiver<Place>, random: StdRng) -> Self {
        let ledger = Ledger::new(&format!("tables of actor {actor_id}"), Tables::new());
        Self { actor_id: actor_id.to_owned(), actor, ledger, random, next_tx: 1, script: VecDeque::new() }
    }

    pub(crate) fn actor_id(&self) -> &str {
        &self.actor_id
    }

    /// Thinks of something to do next.
    fn plan(&mut self) {
        let choice = self.random.random_range(0..100);
        let transaction = self.transaction(choice < 3);
        match choice {
            0..50 => self.script.push_back(Step::Batch(transaction)),
            50..65 => {
                self.script.push_back(Step::Statement("BEGIN".to_owned()));
                self.script.extend(transaction.statements().into_iter().map(Step::Statement));
                self.script.push_back(Step::Commit(transaction));
            }
            65..75 => {
                self.script.push_back(Step::Statement("BEGIN".to_owned()));
                self.script.extend(transaction.statements().into_iter().map(Step::Statement));
                self.script.push_back(Step::Statement("ROLLBACK".to_owned()));
            }
            75..88 => self.script.push_back(Step::FailingBatch(transaction)),
            _ => self.script.push_back(Step::Read),
        }
    }

    fn transaction(&mut self, is_large: bool) -> Transaction {
        let tx = self.next_tx;
        self.next_tx += 1;
        let (rows, bytes) = if is_large { (LARGE_ROWS, LARGE_ROW_BYTES) } else { (self.random.random_range(1..=ROWS_MAX), 0) };
        let mut account = || self.random.random_range(0..ACCOUNTS);
        Transaction { tx, rows, bytes, from: account(), to: account(), amount: account() }
    }

    fn ask(&mut self, running: &Running, step: Step) -> (Asked, Pending) {
        match step {
            Step::Batch(transaction) => {
                let asked = self.batch(running, transaction.statements());
                self.ledger.sent(Write::Transaction(transaction));
                (Asked::Write, asked)
            }
            Step::Statement(sql) => (Asked::Part, self.execute(running, &sql)),
            Step::Commit(transaction) => {
                let asked = self.execute(running, "COMMIT");
                self.ledger.sent(Write::Transaction(transaction));
                (Asked::Write, asked)
            }
            Step::FailingBatch(transaction) => {
                let mut statements = transaction.statements();
                statements.push("INSERT INTO account SELECT * FROM account".to_owned());
                (Asked::Impossible, self.batch(running, statements))
            }
            Step::Read => (Asked::Read, self.execute(running, READ_SUM)),
        }
    }

    fn execute(&self, running: &Running, sql: &str) -> Pending {
        let data = SqliteExecuteRequest {
            namespace_id: NAMESPACE.to_owned(),
            actor_id: self.actor_id.clone(),
            generation: running.generation.into(),
            sql: sql.to_owned(),
            params: None,
        };
        running.host.ask(|request_id| ToRivet::SqliteExecute { request_id, data })
    }

    fn batch(&self, running: &Running, statements: Vec<String>) -> Pending {
        let data = SqliteExecuteBatchRequest {
            namespace_id: NAMESPACE.to_owned(),
            actor_id: self.actor_id.clone(),
            generation: running.generation.into(),
            statements: statements.into_iter().map(|sql| SqliteBatchStatement { sql, params: None }).collect(),
        };
        running.host.ask(|request_id| ToRivet::SqliteExecuteBatch { request_id, data })
    }

    /// A read sees what was asked for before it, and nothing that comes after it.
    fn compare(&mut self, found: &[SqliteExecuteResult]) -> Checked {
        let rows: i64 = self.ledger.known().parts.values().map(|(rows, _)| rows).sum();
        let found = numbers(found.first()).map_err(|what| self.ledger.violation(&what))?;
        if found != [[rows, ACCOUNTS * MONEY]] {
            return Err(self.ledger.violation(&format!("{found:?} instead of {rows} rows and {} money", ACCOUNTS * MONEY)));
        }
        self.ledger.read_compared();
        Ok(())
    }
}

impl Writer for SqlWriter {
    type Asked = Asked;
    type Content = Tables;

    fn counts(&self) -> Counts {
        self.ledger.counts()
    }

    fn ledger(&mut self) -> &mut Ledger<Tables> {
        &mut self.ledger
    }

    fn actor(&mut self) -> &mut watch::Receiver<Place> {
        &mut self.actor
    }

    fn begin(&mut self) {
        self.script.clear();
    }

    fn ask_next(&mut self, running: &Running) -> (Asked, Pending) {
        loop {
            match self.script.pop_front() {
                Some(step) => return self.ask(running, step),
                None => self.plan(),
            }
        }
    }

    fn take(&mut self, asked: Asked, answer: ToEnvoy) -> Result<Taken, Violation> {
        match (asked, results(answer)) {
            (Asked::Write, Ok(_)) => self.ledger.acknowledged(),
            (Asked::Write, Err(why)) => {
                self.ledger.refused(&why);
                return Ok(Taken::Refused(why));
            }
            (Asked::Part, Ok(_)) => {}
            (Asked::Part | Asked::Read, Err(why)) => return Ok(Taken::Refused(why)),
            (Asked::Impossible, Ok(_)) => return Err(self.ledger.violation("a batch with a wrong statement was accepted")),
            (Asked::Impossible, Err(why)) => self.ledger.rightly_refused(&why),
            (Asked::Read, Ok(found)) => self.compare(&found)?,
        }
        Ok(Taken::AsItShould)
    }

    fn ask_all(&self, running: &Running) -> Vec<Pending> {
        let data = SqliteExecRequest {
            namespace_id: NAMESPACE.to_owned(),
            actor_id: self.actor_id.clone(),
            generation: running.generation.into(),
            sql: CREATE.to_owned(),
        };
        let create = running.host.ask(|request_id| ToRivet::SqliteExec { request_id, data });
        let reads = ["PRAGMA integrity_check", READ_ACCOUNTS, READ_PARTS].map(|sql| self.execute(running, sql));
        std::iter::once(create).chain(reads).collect()
    }

    fn found(answers: Vec<ToEnvoy>) -> Result<Tables, String> {
        let answers = answers.into_iter().map(results).collect::<Result<Vec<_>, _>>()?;
        let [_, sound, accounts, parts] = answers.as_slice() else { return Err("no answer".to_owned()) };
        let sound = sound.first().map(|result| &result.rows);
        if sound != Some(&vec![vec![SqliteColumnValue::Text("ok".to_owned())]]) {
            return Err(format!("the integrity check says {sound:?}"));
        }
        let accounts = numbers(accounts.first())?.into_iter().map(|account| account[1]).collect();
        let mut tables = Tables { accounts, parts: BTreeMap::new() };
        for part in numbers(parts.first())? {
            let [tx, rows, least, most, bytes] = part.as_slice() else { return Err("other columns".to_owned()) };
            if rows != least || rows != most {
                return Err(format!("transaction {tx} has {rows} of {most} rows"));
            }
            tables.parts.insert(*tx, (*rows, *bytes));
        }
        Ok(tables)
    }
}

/// Rows that hold nothing but numbers.
fn numbers(result: Option<&SqliteExecuteResult>) -> Result<Vec<Vec<i64>>, String> {
    let number = |value: &SqliteColumnValue| {
        let SqliteColumnValue::Integer(number) = value else { return Err(format!("{value:?} instead of a number")) };
        Ok(*number)
    };
    let rows = &result.ok_or("no result")?.rows;
    rows.iter().map(|row| row.iter().map(number).collect()).collect()
}

/// The results of a statement, or of those of a batch, or none of a script; or the refusal in words.
fn results(answer: ToEnvoy) -> Result<Vec<SqliteExecuteResult>, String> {
    if let ToEnvoy::SqliteExecute { data, .. } = answer {
        or_refusal(data).map(|done| vec![done.result])
    } else if let ToEnvoy::SqliteExecuteBatch { data, .. } = answer {
        or_refusal(data).map(|done| done.results)
    } else if let ToEnvoy::SqliteExec { data, .. } = answer {
        or_refusal(data).map(|_| Vec::new())
    } else {
        panic!("{answer:?} answers a request for SQL")
    }
}
