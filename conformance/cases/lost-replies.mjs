// The host's link is cut between two messages of a commit, at each place in turn: the SDK cannot know whether it was made.
//
// It tells the user that the write has failed, and takes its own copy of the database back. What must hold then: the engine
// takes the commit back, too, if it was made; so the same instance goes on, and nothing of the failed write is ever seen.
import assert from "node:assert/strict";
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

const nameOf = ({ write, kind, at, nth = 1 }) => `${write[0]}, ${at} of ${kind} ${nth}`;

/** An actor with one row, or with room that a VACUUM gives back. */
async function prepare(t, point) {
  const actor = t.client.shaky.getOrCreate(t.key("shaky"));
  await actor.carryOut("insert", 1);
  if (point.write[0] === "vacuum") {
    await actor.carryOut("insertMany", 2, 40);
    await actor.clear();
  }
  return { point, actor, before: await actor.whoami() };
}

/** Begins the write of each actor, and cuts the host's link when all of them are at their points. */
async function cutAmid(t, scenes) {
  const reached = scenes.map(async ({ point, actor, before }) => {
    const there = t.tap.hold(before.id, point.kind, point.at, point.nth);
    await actor.begin(...point.write);
    await there;
  });
  t.doing(`bringing ${scenes.length} actors to where their links are cut`);
  await Promise.all(reached);
  const opened = t.tap.opened;
  await t.tap.cut();
  await t.until("the host to connect again", async () => t.tap.opened > opened && (await t.host.listing()) !== undefined);
}

async function check(t, { point, actor, before }, rows) {
  const name = nameOf(point);
  const instance = await t.until(`the outcome (${name})`, async () => {
    const now = await actor.whoami();
    return (now.instance !== before.instance || (await actor.outcomes()).length > 0) && now;
  });
  assert.deepEqual(instance, before, `the same instance goes on (${name})`);
  const [outcome] = await actor.outcomes();
  assert.match(outcome, /^failed/, `the user is told that it has failed (${name})`);
  assert.deepEqual(await actor.rows(), rows, `nothing of the failed write is there (${name})`);
  await actor.carryOut("insert", 1_000);
  assert.deepEqual(await actor.rows(), [...rows, 1_000], `writing goes on (${name})`);
  assert.deepEqual(await actor.integrity(), [{ integrity_check: "ok" }], name);
}

/** What the engine gives the next instance is what the last one has seen. */
async function checkAfterWake(t, { point, actor, before }, rows) {
  t.doing(`waking the actor (${nameOf(point)})`);
  await actor.nap();
  await t.asleep(before.id);
  assert.deepEqual(await actor.rows(), rows, `stored as it was seen (${nameOf(point)})`);
  assert.deepEqual(await actor.integrity(), [{ integrity_check: "ok" }], nameOf(point));
  assertWokenOnce(before, await actor.whoami());
}

async function everyBoundary(t) {
  t.doing("preparing the actors");
  const scenes = await Promise.all(POINTS.map((point) => prepare(t, point)));
  await cutAmid(t, scenes);
  for (const scene of scenes) await check(t, scene, [1]);
  for (const scene of scenes) await checkAfterWake(t, scene, [1, 1_000]);
}

export const cases = [
  {
    name: "lost-replies",
    about: `the host's link is cut at ${POINTS.length} places of single and staged commits and VACUUM: no instance is lost`,
    stack: "own-tapped",
    encodings: "none",
    run: everyBoundary,
  },
];
