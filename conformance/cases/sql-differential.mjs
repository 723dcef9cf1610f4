// The same random statements for SQLite in the host process and for SQL that the engine executes: nobody can tell one from the
// other.
import assert from "node:assert/strict";
import { sequence } from "../lib/vault-writer.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

const SEEDS = [1, 2, 3];
const STEPS = 100;

const SCHEMA = [
  "CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER, t TEXT, b BLOB)",
  "CREATE INDEX a_n ON a (n)",
  "CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER REFERENCES a ON DELETE CASCADE, v REAL NOT NULL) STRICT",
  "CREATE TABLE w (k TEXT, l INTEGER, v, PRIMARY KEY (k, l DESC)) WITHOUT ROWID",
  "CREATE TRIGGER gone AFTER DELETE ON a BEGIN INSERT INTO w VALUES ('gone', old.id, old.t) ON CONFLICT DO NOTHING; END",
  "CREATE VIRTUAL TABLE f USING fts5(t)",
];

const CONTENT = [
  "SELECT * FROM a ORDER BY id",
  "SELECT * FROM s ORDER BY id",
  "SELECT * FROM w ORDER BY k, l",
  "SELECT rowid, t FROM f WHERE f MATCH 'bird' ORDER BY rowid",
  "PRAGMA integrity_check",
];

/** One statement with its values; `below(end)` is a random number. */
function anyStatement(below) {
  const [id, n] = [below(30), below(100)];
  // No empty bytes: the package reads them as null from SQLite in the host, and as what they are from the engine. And no
  // fractions become text: how many digits they then have is up to the version of SQLite.
  const value = [null, n, -(2 ** 40) - n, n / 3, "", `nul\0 ${n}`, "żółć 🐸", { hex: `00ff${n + 10}` }][below(8)];
  const choices = [
    ["INSERT INTO a VALUES (?, ?, ?, zeroblob(?))", id, n, `ä${n}`, [20, 2_000, 30_000][below(3)]],
    ["INSERT OR REPLACE INTO a VALUES (?, ?, 'replaced', ?)", id, n, value],
    ["UPDATE a SET n = n + 7, t = t || ? WHERE n < ? RETURNING id, t, b", `+${id}`, n],
    ["DELETE FROM a WHERE n > ? RETURNING id", n],
    ["INSERT INTO s (a, v) VALUES (nullif(?, 3), ?)", id, n / 3],
    ["INSERT INTO s (a, v) VALUES (?, ?)", id, value],
    ["INSERT INTO w VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v", `k${n % 7}`, id, value],
    ["INSERT INTO f VALUES (?)", `bird ${n} fish`],
    ["SELECT count(*), total(v), avg(n), ? AS value, typeof(?1) FROM s JOIN a ON a.id = s.a WHERE n < ?", value, n],
    ["SELECT nothing FROM a WHERE n = ?", n],
    ["SELECT ?, ?", value],
    ["VACUUM"],
    ["PRAGMA foreign_key_check"],
  ];
  const [statement, ...values] = choices[below(choices.length)];
  return { statement, values };
}

/** A statement, or a transaction of several. */
function anyStep(below) {
  const count = below(3) === 0 ? 2 + below(5) : 1;
  return { statements: Array.from({ length: count }, () => anyStatement(below)), fails: below(3) === 0 };
}

const alone = (statement) => ({ statements: [{ statement, values: [] }], fails: false });

function stepsOf(seed) {
  const random = sequence(seed);
  const steps = Array.from({ length: STEPS }, () => anyStep((end) => Math.floor(random() * end)));
  return [...SCHEMA.map(alone), ...steps];
}

const content = CONTENT.map(alone);

/** What an actor answers to all statements, and holds before and after a sleep. */
async function carryOut(t, client, seed) {
  const sql = client.sql.getOrCreate(t.key(`seed-${seed}`));
  const before = await sql.whoami();
  const outcomes = await sql.each(stepsOf(seed));
  const found = await sql.each(content);
  await sql.nap();
  await t.asleep(before.id);
  const again = await sql.each(content);
  assertWokenOnce(before, await sql.whoami());
  return { outcomes, found, again };
}

async function differential(t) {
  await t.stack.addHost({ flavour: "remote", pool: "remote" });
  const remotes = t.newClient("bare", t.engine.endpoint, "remote");
  for (const seed of SEEDS) {
    t.doing(`executing random statements, seed ${seed}`);
    const [local, remote] = await Promise.all([carryOut(t, t.client, seed), carryOut(t, remotes, seed)]);
    const statements = stepsOf(seed).flatMap((step) => step.statements);
    assert.equal(local.outcomes.length, statements.length);
    for (const [i, { statement, values }] of statements.entries()) {
      const what = `seed ${seed}, statement ${i}: ${statement} with ${JSON.stringify(values)}`;
      assert.equal(remote.outcomes[i], local.outcomes[i], what);
    }
    assert.deepEqual(remote.found, local.found, `seed ${seed}`);
    assert.deepEqual(local.again, local.found, `seed ${seed}, after a sleep`);
    assert.deepEqual(remote.again, remote.found, `seed ${seed}, after a sleep`);
  }
}

export const cases = [
  {
    name: "sql-differential",
    about: `random statements (${SEEDS.length} x ${STEPS}): SQLite in the host answers as the engine does`,
    encodings: "none",
    run: differential,
  },
];
