// Measuring from outside: latencies, rates, and the processor time that a process uses.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

/** USER_HZ, in which Linux counts processor time: one tick is 10 ms. */
const MS_PER_TICK = 10;

/** Processor time that a process has used so far, in ms, in steps of 10. */
export function processorMs(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
  // Behind the name of the program, which may hold spaces: field 3 and so on; user and system time are 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** Resident memory of a process, in MB. */
export function residentMb(pid) {
  return Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "latin1"))[1]) / 1000;
}

/** Processor time that the whole machine has spent so far, in ms: all of it, and the part that was work. */
function machineMs() {
  const [line] = fs.readFileSync("/proc/stat", "latin1").split("\n");
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((sum, value) => sum + value, 0);
  const idle = ticks[3] + ticks[4];
  return { all: all * MS_PER_TICK, work: (all - idle) * MS_PER_TICK };
}

/**
 * Runs `work` and returns how long it took, the processor time that each of `pids` (by name) and this process used
 * meanwhile, and the share of the machine that others used.
 */
export async function observe(pids, work) {
  const all = Object.entries({ ...pids, client: process.pid });
  const spent = () => all.map(([, pid]) => processorMs(pid));
  const [before, machineBefore, began] = [spent(), machineMs(), performance.now()];
  await work();
  const [wallMs, after, machineAfter] = [performance.now() - began, spent(), machineMs()];
  const used = after.map((ms, i) => ms - before[i]);
  const usedByOthers = machineAfter.work - machineBefore.work - used.reduce((sum, ms) => sum + ms, 0);
  return {
    wallMs,
    processorMs: Object.fromEntries(all.map(([name], i) => [name, used[i]])),
    othersPercent: (100 * Math.max(0, usedByOthers)) / Math.max(1, machineAfter.all - machineBefore.all),
  };
}

/** The value below which a share of all values lies. */
function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

const SYNCS = 40;

/**
 * How long it takes now until 4 KiB are on the disk that holds `folder`: the median of several times, in ms. An engine that
 * acknowledges nothing before that can be no faster.
 */
export function syncMs(folder) {
  const file = path.join(folder, "sync");
  const descriptor = fs.openSync(file, "w");
  const took = Array.from({ length: SYNCS }, () => {
    const began = performance.now();
    fs.writeSync(descriptor, Buffer.alloc(4_096), 0, 4_096, 0);
    fs.fdatasyncSync(descriptor);
    return performance.now() - began;
  });
  fs.closeSync(descriptor);
  fs.rmSync(file);
  return quantile(
    took.sort((a, b) => a - b),
    0.5,
  );
}

/** Calls `operation(i)` for each i below `count`, so many `clients` at a time; nothing may fail. */
export async function rate(pids, { count, clients, operation }) {
  const took = [];
  let next = 0;
  const client = async () => {
    while (next < count) {
      const i = next++;
      const began = performance.now();
      await operation(i);
      took.push(performance.now() - began);
    }
  };
  const observed = await observe(pids, () => Promise.all(Array.from({ length: clients }, client)));
  took.sort((a, b) => a - b);
  const each = Object.entries(observed.processorMs).map(([name, ms]) => [`${name}_ms_each`, ms / count]);
  return {
    count,
    per_second: (1000 * count) / observed.wallMs,
    p50_ms: quantile(took, 0.5),
    p99_ms: quantile(took, 0.99),
    ...Object.fromEntries(each),
    others_percent: observed.othersPercent,
  };
}

/** A plain client that keeps its connection. */
export class KeepAliveClient {
  constructor(endpoint) {
    this.endpoint = endpoint;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1, noDelay: true });
  }

  /** Sends JSON and returns the body of the answer, which must be a success. */
  post(path, value) {
    const body = JSON.stringify(value);
    const headers = {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      "x-rivet-encoding": "json",
    };
    return new Promise((resolve, reject) => {
      const request = http.request(this.endpoint + path, { method: "POST", agent: this.agent, headers }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (piece) => {
          text += piece;
        });
        answer.on("end", () => {
          if (answer.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${answer.statusCode} ${text}`));
        });
        answer.on("error", reject);
      });
      request.on("error", reject);
      request.end(body);
    });
  }

  close() {
    this.agent.destroy();
  }
}
