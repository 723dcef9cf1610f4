// SQL and key-value data of an actor.
import assert from "node:assert/strict";
import { rowText } from "../apps/storage.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

// 5,000 rows of 400 bytes are about 550 pages of 4 KiB: more than one commit message may carry, so they are staged.
const ROWS = 5_000;
const ROW_BYTES = 400;

const only = async (rows) => {
  const list = await rows;
  assert.equal(list.length, 1);
  return list[0];
};

async function sleepAndReturn(t, actor) {
  const before = await actor.whoami();
  await actor.nap();
  await t.asleep(before.id);
  t.doing("waking the actor");
  assertWokenOnce(before, await actor.whoami());
}

async function rows(t) {
  const sql = t.client.sql.getOrCreate(t.key("rows"));
  t.doing("inserting and reading rows");
  await sql.insert(1, "one");
  await sql.insert(2, "żółć 🐸");
  assert.deepEqual(await sql.select("SELECT n, body FROM entry ORDER BY n"), [
    { n: 1, body: "one" },
    { n: 2, body: "żółć 🐸" },
  ]);
  t.doing("reading every column type");
  const types = await only(sql.select("SELECT NULL AS a, 7 AS b, 1.5 AS c, 'text' AS d, ? AS e", "x"));
  assert.deepEqual(types, { a: null, b: 7, c: 1.5, d: "text", e: "x" });
  t.doing("failing inside a transaction");
  await assert.rejects(sql.fillAndFail());
  assert.deepEqual(
    await only(sql.select("SELECT count(*) AS n FROM entry")),
    { n: 2 },
    "a failed transaction leaves no trace",
  );
  await sleepAndReturn(t, sql);
  assert.deepEqual(await only(sql.select("SELECT body FROM entry WHERE n = ?", 2)), {
    body: "żółć 🐸",
  });
}

async function large(t) {
  const sql = t.client.sql.getOrCreate(t.key("large"));
  t.doing(`inserting ${ROWS} rows in one transaction`);
  await sql.fill(1, ROWS, ROW_BYTES);
  await checkRows(t, sql, ROWS);
  await sleepAndReturn(t, sql);
  await checkRows(t, sql, ROWS);

  t.doing("deleting every second row and compacting");
  await sql.select("DELETE FROM entry WHERE n % 2 = 0");
  const pagesBefore = (await only(sql.select("PRAGMA page_count"))).page_count;
  await sql.vacuum();
  const pagesAfter = (await only(sql.select("PRAGMA page_count"))).page_count;
  assert.ok(pagesAfter < pagesBefore * 0.7, `VACUUM shrinks the database (${pagesBefore} to ${pagesAfter} pages)`);
  await sleepAndReturn(t, sql);
  await checkRows(t, sql, ROWS / 2);

  t.doing("growing again after the compaction");
  await sql.fill(ROWS + 1, 2 * ROWS, ROW_BYTES);
  await sleepAndReturn(t, sql);
  await checkRows(t, sql, ROWS / 2 + ROWS);
}

async function checkRows(t, sql, count) {
  t.doing(`checking ${count} rows`);
  const found = await only(sql.select("SELECT count(*) AS n, sum(length(body)) AS bytes FROM entry"));
  assert.deepEqual(found, { n: count, bytes: count * ROW_BYTES });
  assert.deepEqual(await only(sql.select("PRAGMA integrity_check")), { integrity_check: "ok" });
  for (const n of [1, 777, ROWS - 1]) {
    assert.deepEqual(await only(sql.select("SELECT body FROM entry WHERE n = ?", n)), {
      body: rowText(n, ROW_BYTES),
    });
  }
}

async function keyValue(t) {
  const kv = t.client.kv.getOrCreate(t.key("kv"));
  const bytes = new Uint8Array([0, 1, 128, 255]);
  t.doing("writing and reading pairs");
  assert.equal(await kv.get("user:1"), null);
  await kv.put("user:1", "Ada");
  await kv.put("user:2", "Grace");
  await kv.put("other", "x");
  await kv.putBytes("blob", [...bytes]);
  await kv.put("user:2", "Barbara");
  const check = async () => {
    assert.equal(await kv.get("user:2"), "Barbara");
    assert.deepEqual(await kv.list("user:"), [
      ["user:1", "Ada"],
      ["user:2", "Barbara"],
    ]);
    assert.deepEqual(await kv.getBytes("blob"), [...bytes]);
  };
  await check();
  await sleepAndReturn(t, kv);
  await check();
  t.doing("deleting a pair");
  await kv.remove("user:1");
  assert.equal(await kv.get("user:1"), null);
  assert.deepEqual(await kv.list("user:"), [["user:2", "Barbara"]]);
}

export const cases = [
  {
    name: "sql-rows",
    about: "rows, column types, rollback, and all of it after a wake",
    run: rows,
  },
  {
    name: "sql-large",
    about: `${ROWS} rows in one transaction, delete, VACUUM, regrow, with a wake after each`,
    encodings: "none",
    run: large,
  },
  { name: "kv", about: "put, get, list, delete; text and bytes; after a wake", run: keyValue },
];
