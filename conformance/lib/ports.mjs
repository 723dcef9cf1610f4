// Free TCP ports on the loopback address.
import net from "node:net";

// Below the kernel's ephemeral range (32768 and up): while the engine is down, a client that keeps dialling an ephemeral
// port can be given that very port as its own and end up connected to itself, and then the engine cannot bind it again.
const range = { lowest: 20_000, highest: 32_000 };
const taken = new Set();

/** Keeps to these ports from now on: another runner has the others, also while what listens there is down for a moment. */
export function keepToPorts(lowest, highest) {
  Object.assign(range, { lowest, highest });
}

function canBind(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** The first port of `count` consecutive free ones; never handed out twice by this process. */
export async function freePorts(count) {
  for (let attempt = 0; attempt < 500; attempt++) {
    const first = range.lowest + Math.floor(Math.random() * (range.highest - range.lowest - count));
    const block = Array.from({ length: count }, (_, i) => first + i);
    if (block.some((port) => taken.has(port))) continue;
    const free = await Promise.all(block.map(canBind));
    if (!free.every(Boolean)) continue;
    for (const port of block) taken.add(port);
    return first;
  }
  throw new Error(`found no ${count} consecutive free ports between ${range.lowest} and ${range.highest}`);
}
