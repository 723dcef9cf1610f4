// The storage messages between a host and the engine, as far as cases look into them: envoy protocol version 8.

const FAMILY_KV = "kv";
const FAMILY_PAGES = "pages";
const FAMILY_SQL = "sql";

/** What a host sends, by tag. */
const REQUESTS = new Map([
  [5, { kind: "kv", family: FAMILY_KV, read: kvRequest }],
  [7, { kind: "get pages", family: FAMILY_PAGES, read: getPages }],
  [8, { kind: "commit", family: FAMILY_PAGES, read: commit }],
  [9, { kind: "stage begin", family: FAMILY_PAGES, read: actorOnly }],
  [10, { kind: "stage segment", family: FAMILY_PAGES, read: stageSegment }],
  [11, { kind: "finalize", family: FAMILY_PAGES, read: actorOnly }],
  [12, { kind: "exec", family: FAMILY_SQL, read: sql }],
  [13, { kind: "execute", family: FAMILY_SQL, read: sql }],
  [14, { kind: "batch", family: FAMILY_SQL, read: sql }],
]);

/** What the engine answers, by tag. */
const REPLIES = new Map([
  [3, FAMILY_KV],
  [6, FAMILY_PAGES],
  [7, FAMILY_PAGES],
  [8, FAMILY_PAGES],
  [9, FAMILY_PAGES],
  [10, FAMILY_PAGES],
  [11, FAMILY_SQL],
  [12, FAMILY_SQL],
  [13, FAMILY_SQL],
]);

/** What tells a host to start or to stop actors. */
const COMMANDS = 1;

const KV_OPERATIONS = ["get", "list", "put", "delete", "delete range", "drop"];

/** Reads BARE values one after the other. */
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  byte() {
    return this.bytes[this.at++];
  }

  /** A length or count; none of those here exceeds 2^31. */
  uint() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  u32() {
    this.at += 4;
    return this.bytes.readUInt32LE(this.at - 4);
  }

  u64() {
    this.at += 8;
    return Number(this.bytes.readBigUInt64LE(this.at - 8));
  }

  data() {
    const length = this.uint();
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  text() {
    return this.data().toString("utf8");
  }

  optional(read) {
    return this.byte() === 0 ? null : read();
  }

  list(read) {
    return Array.from({ length: this.uint() }, read);
  }

  /** The numbers of a list of pages; their bytes are passed over. */
  pageNumbers() {
    return this.list(() => {
      const number = this.u32();
      this.data();
      return number;
    });
  }
}

function kvRequest(reader) {
  const actorId = reader.text();
  const requestId = reader.u32();
  return { actorId, requestId, operation: KV_OPERATIONS[reader.byte()] };
}

function actorOnly(reader) {
  return { requestId: reader.u32(), actorId: reader.text() };
}

function getPages(reader) {
  return { ...actorOnly(reader), pages: reader.list(() => reader.u32()) };
}

function commit(reader) {
  const from = actorOnly(reader);
  const pages = reader.pageNumbers();
  const size = reader.u32();
  reader.u64();
  reader.optional(() => reader.u64());
  return { ...from, pages, size, head: reader.optional(() => reader.u64()) };
}

function stageSegment(reader) {
  const from = actorOnly(reader);
  reader.optional(() => reader.u64());
  reader.u64();
  return { ...from, first: reader.u32(), pages: reader.pageNumbers() };
}

function sql(reader) {
  const requestId = reader.u32();
  reader.text();
  return { requestId, actorId: reader.text() };
}

/** Whether it saves the state of an actor with SQLite in the host: that is on page 5. When is up to a timer of the SDK. */
export const isStateSave = ({ kind, pages }) => kind === "commit" && pages.length === 1 && pages[0] === 5;

export const isCommand = (bytes) => bytes[0] === COMMANDS;

/** A storage request of a host; null for any other message. */
export function request(bytes) {
  const known = REQUESTS.get(bytes[0]);
  if (known === undefined) return null;
  const { kind, family, read } = known;
  return { kind, family, bytes: bytes.length, ...read(new Reader(bytes.subarray(1))) };
}

/** The engine's reply to a storage request; null for any other message. */
export function reply(bytes) {
  const family = REPLIES.get(bytes[0]);
  if (family === undefined) return null;
  const reader = new Reader(bytes.subarray(1));
  const requestId = reader.u32();
  const failed = reader.byte() === (family === FAMILY_KV ? 0 : 1);
  if (!failed) return { family, requestId, bytes: bytes.length, error: null };
  const texts = family === FAMILY_KV ? [reader.text()] : [reader.text(), reader.text(), reader.text()];
  return { family, requestId, bytes: bytes.length, error: texts.join(" / ") };
}
