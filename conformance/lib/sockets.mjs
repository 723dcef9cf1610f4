// Reading a WebSocket message by message.
import { within } from "./wait.mjs";

/** Collects what a socket receives, so that nothing is lost between two awaits. */
export class Inbox {
  constructor(socket) {
    this.socket = socket;
    this.messages = [];
    this.waiting = [];
    this.opened = new Promise((resolve, reject) => {
      if (socket.readyState === 1) resolve();
      socket.addEventListener("open", () => resolve());
      socket.addEventListener("close", (event) => reject(new Error(`closed ${event.code} ${event.reason}`)));
    });
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", (event) => resolve({ code: event.code, reason: event.reason }));
    });
    // A case that never waits for the opening must not end the process when it fails.
    this.opened.catch(() => {});
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", (event) => {
      const reader = this.waiting.shift();
      if (reader === undefined) this.messages.push(event.data);
      else reader(event.data);
    });
  }

  /** The next message; fails when the socket closes before it comes. */
  async next(deadlineMs = 10_000) {
    if (this.messages.length > 0) return this.messages.shift();
    const message = new Promise((resolve) => this.waiting.push(resolve));
    const closed = this.closed.then(({ code, reason }) => {
      throw new Error(`the WebSocket was closed (${code} ${reason}) instead of bringing a message`);
    });
    return within("a WebSocket message", Promise.race([message, closed]), deadlineMs);
  }

  /** Sends and returns the next message. */
  ask(data) {
    this.socket.send(data);
    return this.next();
  }
}
