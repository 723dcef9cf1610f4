// The host's link is cut between two messages of a commit, at each place in turn: the SDK cannot know whether it was made.
//
// It tells the user that the write has failed, and takes its own copy of the database back. What must hold then: the engine
// takes the commit back, too, if it was made; so the same instance goes on, and nothing of the failed write is ever seen.
import assert from "node:assert/strict";
import { isStateSave } from "../lib/envoy.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

/** So many rows of 4,000 bytes do not fit into a single commit: they are staged, in two segments. */
const STAGED_ROWS = 330;
const STAGED = ["insertMany", 2, STAGED_ROWS];

/**
 * A write, and the message of it that is lost: the request or the reply of the `nth` exchange of this kind; or "sent": the
 * request reaches the engine, and the link is cut at once.
 */
const POINTS = [
  { write: ["insert", 2], kind: "commit", at: "request" },
  { write: ["insert", 2], kind: "commit", at: "sent" },
  { write: ["insert", 2], kind: "commit", at: "reply" },
  { write: STAGED, kind: "stage begin", at: "request" },
  { write: STAGED, kind: "stage begin", at: "reply" },
  { write: STAGED, kind: "stage segment", at: "request" },
  { write: STAGED, kind: "stage segment", at: "reply" },
  { write: STAGED, kind: "stage segment", at: "request", nth: 2 },
  { write: STAGED, kind: "stage segment", at: "sent", nth: 2 },
  { write: STAGED, kind: "stage segment", at: "reply", nth: 2 },
  { write: STAGED, kind: "finalize", at: "request" },
  { write: STAGED, kind: "finalize", at: "sent" },
  { write: STAGED, kind: "finalize", at: "reply" },
  // The compacted pages, then a commit without any that only shrinks the database.
  { write: ["vacuum"], kind: "commit", at: "reply" },
  { write: ["vacuum"], kind: "commit", at: "request", nth: 2 },
  { write: ["vacuum"], kind: "commit", at: "reply", nth: 2 },
];

/** What failed to be saved of a state is saved later, so there is nothing to tell the user. */
const STATE_SAVE = { write: ["note", "kept"], kind: "commit", at: "reply" };

/**
 * The same for SQL that the engine executes. A statement of its own is made once the engine has it, as with any database: only
 * the user is told that its outcome is not known. `made` says whether it must be, may be (null), or must not be. A transaction
 * whose connection is lost before its end is never made.
 */
const REMOTE_POINTS = [
  { write: ["insert", 2], kind: "execute", at: "request", made: false },
  { write: ["insert", 2], kind: "execute", at: "sent", made: null },
  { write: ["insert", 2], kind: "execute", at: "reply", made: true },
  { write: ["insertMany", 2, 9], kind: "execute", at: "request", nth: 4, made: false },
  { write: ["insertMany", 2, 9], kind: "execute", at: "reply", nth: 4, made: false },
  { write: ["note", "kept"], kind: "batch", at: "reply", made: false },
];

const nameOf = ({ write, kind, at, nth = 1 }) => `${write[0]}, ${at} of ${kind} ${nth}`;

/** An actor with one row, or with room that a VACUUM gives back. */
async function prepare(t, client, point) {
  const actor = client.shaky.getOrCreate(t.key("shaky"));
  await actor.carryOut("insert", 1);
  if (point.write[0] === "vacuum") {
    await actor.carryOut("insertMany", 2, 40);
    await actor.clear();
  }
  return { point, actor, before: await actor.whoami() };
}

/** Begins the write of each actor, and cuts the link of their host when all of them are at their points. */
async function cutAmid(t, scenes) {
  const reached = scenes.map(async ({ point: { write, kind, at, nth }, actor, before }) => {
    const isWanted = (exchange) => exchange.kind === kind && isStateSave(exchange) === (kind === "commit" && write[0] === "note");
    const there = t.tap.hold(before.id, isWanted, at, nth);
    await actor.begin(...write);
    await there;
  });
  t.doing(`bringing ${scenes.length} actors to where their links are cut`);
  await Promise.all(reached);
  const { opened } = t.tap;
  const cut = await t.tap.cut();
  await t.until("the hosts to connect again", () => t.tap.opened === opened + cut);
}

/** The instance of before has been told that its write failed. */
async function checkOutcome(t, { point, actor, before }) {
  const name = nameOf(point);
  const now = await t.until(`the outcome (${name})`, async () => {
    const now = await actor.whoami();
    return (now.instance !== before.instance || (await actor.outcomes()).length > 0) && now;
  });
  assert.deepEqual(now, before, `the same instance goes on (${name})`);
  if (point.write[0] === "note") return;
  const [outcome] = await actor.outcomes();
  assert.match(outcome, /^failed/, `the user is told that it has failed (${name})`);
}

/** Writing goes on, and the next instance is given what the last one has seen. */
async function checkAfterwards(t, { point, actor, before }, rows) {
  const name = nameOf(point);
  await actor.carryOut("insert", 1_000);
  assert.deepEqual(await actor.rows(), [...rows, 1_000], `writing goes on (${name})`);
  assert.deepEqual(await actor.integrity(), [{ integrity_check: "ok" }], name);
  await actor.nap();
  await t.asleep(before.id);
  t.doing(`waking the actor (${name})`);
  assert.deepEqual(await actor.rows(), [...rows, 1_000], `stored as it was seen (${name})`);
  assert.deepEqual(await actor.integrity(), [{ integrity_check: "ok" }], name);
  if (point.write[0] === "note") assert.deepEqual(await actor.notes(), ["kept"]);
  assertWokenOnce(before, await actor.whoami());
}

async function everyBoundary(t) {
  t.doing("preparing the actors");
  const scenes = await Promise.all([...POINTS, STATE_SAVE].map((point) => prepare(t, t.client, point)));
  await cutAmid(t, scenes);
  await Promise.all(
    scenes.map(async (scene) => {
      await checkOutcome(t, scene);
      assert.deepEqual(await scene.actor.rows(), [1], `nothing of the failed write is there (${nameOf(scene.point)})`);
      await checkAfterwards(t, scene, [1]);
    }),
  );
}

async function remoteStatements(t) {
  await t.stack.addHost({ flavour: "remote", pool: "remote" });
  const client = t.newClient("bare", t.engine.endpoint, "remote");
  t.doing("preparing the actors");
  const scenes = await Promise.all(REMOTE_POINTS.map((point) => prepare(t, client, point)));
  await cutAmid(t, scenes);
  await Promise.all(
    scenes.map(async (scene) => {
      const { made } = scene.point;
      await checkOutcome(t, scene);
      const rows = await scene.actor.rows();
      assert.deepEqual(rows, (made ?? rows.includes(2)) ? [1, 2] : [1], nameOf(scene.point));
      await checkAfterwards(t, scene, rows);
    }),
  );
}

export const cases = [
  {
    name: "lost-replies",
    about: `the host's link is cut at ${POINTS.length} places of single and staged commits and VACUUM: no instance is lost`,
    stack: "own-tapped",
    encodings: "none",
    run: everyBoundary,
  },
  {
    name: "lost-replies-remote",
    about: "the same amid SQL that the engine executes: open transactions are rolled back",
    stack: "own-tapped",
    encodings: "none",
    run: remoteStatements,
  },
];
