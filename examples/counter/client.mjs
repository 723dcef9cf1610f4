// Adds to a counter over a connection, and prints the events that this causes. Usage: node client.mjs [KEY [POOL]]
import { createClient } from "rivetkit/client";

const [key = "visits", poolName = "default"] = process.argv.slice(2);
const client = createClient({ endpoint: process.env.RIVET_ENDPOINT ?? "http://127.0.0.1:6420", poolName });

const connection = client.counter.getOrCreate([key]).connect();
connection.on("changed", (count) => console.log(`event: ${key} is now ${count}`));

console.log(`${key} was ${await connection.get()}`);
for (const by of [1, 2, 3]) console.log(`answer: ${await connection.increment(by)}`);

await client.dispose();
