// A tap on the way from hosts to the engine: it sees whole messages, can keep some back, and can cut the connections at an
// exact point between two messages.
import http from "node:http";
import WebSocket, { WebSocketServer } from "ws";
import * as envoy from "./envoy.mjs";
import { freePorts } from "./ports.mjs";

const NOT_FORWARDED = new Set(["connection", "upgrade", "host"]);
const isHopByHop = (name) => NOT_FORWARDED.has(name) || name.startsWith("sec-websocket-");

/** Close codes that say how a connection ended and are no part of a close frame. */
const NEVER_SENT = new Set([1005, 1006, 1015]);

const sent = (socket, data) => new Promise((resolve) => socket.send(data, resolve));

export class Tap {
  static async inFrontOf(port) {
    const tap = new Tap();
    tap.upstream = port;
    tap.links = new Set();
    /** Connections of hosts that were opened so far. */
    tap.opened = 0;
    /** Storage exchanges in the order of their requests: the request, and `reply` once there is one. */
    tap.exchanges = [];
    tap.holding = new Map();
    tap.server = http.createServer((request, response) => tap.#passRequest(request, response));
    // The engine has chosen among the host's protocols before the host is answered.
    const handleProtocols = (_, request) => request.chosenProtocol;
    tap.sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 0, handleProtocols });
    tap.server.on("upgrade", (request, socket, head) => tap.#passUpgrade(request, socket, head));
    const own = await freePorts(1);
    await new Promise((resolve) => tap.server.listen(own, "127.0.0.1", resolve));
    tap.endpoint = `http://127.0.0.1:${own}`;
    return tap;
  }

  /** What was exchanged for one actor since its `after`-th exchange. */
  of(actorId, after = 0) {
    return this.exchanges.filter((one) => one.actorId === actorId).slice(after);
  }

  /**
   * Keeps back one message of an actor: the request (`at` "request") or the reply (`at` "reply") of the `nth` exchange from
   * now on that `isWanted`; `at` "sent" is a request that is sent as the last thing before the cut. The promise is fulfilled
   * when the message is there.
   */
  hold(actorId, isWanted, at, nth = 1) {
    return new Promise((reached) => this.holding.set(actorId, { isWanted, at, left: nth, reached, exchange: null }));
  }

  /**
   * Cuts all connections of hosts, and returns how many there were. What was kept back is lost, but for requests that are to be
   * sent.
   */
  async cut() {
    const links = [...this.links];
    for (const link of links) link.deaf = true;
    await Promise.all([...this.holding.values()].map(({ send }) => send?.()));
    this.holding.clear();
    for (const link of links) link.end();
    return links.length;
  }

  /** Lets no orders of the engine, to start or to stop an actor, reach the hosts that are connected now. */
  withholdCommands() {
    for (const link of this.links) link.uninstructed = true;
  }

  async stop() {
    await this.cut();
    this.sockets.close();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #passRequest(request, response) {
    const { method, url, headers } = request;
    const onward = http.request({ port: this.upstream, host: "127.0.0.1", method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }

  #passUpgrade(request, socket, head) {
    socket.on("error", () => socket.destroy());
    const protocols = (request.headers["sec-websocket-protocol"] ?? "").split(",").map((one) => one.trim());
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !isHopByHop(name)));
    const up = new WebSocket(`ws://127.0.0.1:${this.upstream}${request.url}`, protocols.filter(Boolean), {
      headers,
      perMessageDeflate: false,
      maxPayload: 0,
    });
    up.once("error", () => socket.destroy());
    up.once("unexpected-response", (_, answer) => {
      socket.end(`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\nconnection: close\r\n\r\n`);
    });
    // Nothing may be lost between the engine's first message and the host's side of the tap.
    const early = [];
    const keep = (data) => early.push(data);
    up.on("message", keep);
    up.once("open", () => {
      request.chosenProtocol = up.protocol;
      this.sockets.handleUpgrade(request, socket, head, (down) => {
        up.off("message", keep);
        this.#join(up, down, early);
      });
    });
  }

  #join(up, down, early) {
    this.opened += 1;
    const waiting = new Map();
    const link = {
      /** Whether the host hears nothing more. */
      deaf: false,
      /** Whether it hears of nothing that it is to do. */
      uninstructed: false,
      end: () => {
        this.links.delete(link);
        up.terminate();
        down.terminate();
      },
    };
    this.links.add(link);
    const toHost = (data) => {
      if (!link.deaf && !(link.uninstructed && envoy.isCommand(data))) this.#fromEngine(data, waiting, down);
    };
    for (const data of early) toHost(data);
    up.on("message", toHost);
    down.on("message", (data) => this.#fromHost(data, waiting, up));
    for (const [one, other] of [
      [up, down],
      [down, up],
    ]) {
      one.on("error", () => link.end());
      one.on("close", (code, reason) => {
        this.links.delete(link);
        if (other.readyState !== WebSocket.OPEN) return;
        if (NEVER_SENT.has(code)) other.terminate();
        else other.close(code, reason);
      });
    }
  }

  #fromHost(data, waiting, up) {
    const request = envoy.request(data);
    if (request !== null) {
      const exchange = { ...request, reply: null };
      this.exchanges.push(exchange);
      waiting.set(`${request.family} ${request.requestId}`, exchange);
      const rule = this.holding.get(request.actorId);
      if (rule?.isWanted(request) && --rule.left === 0) rule.exchange = exchange;
      if (rule?.exchange === exchange && rule.at === "sent") rule.send = () => sent(up, data);
      if (rule?.exchange === exchange && rule.at !== "reply") return rule.reached();
    }
    up.send(data);
  }

  #fromEngine(data, waiting, down) {
    const reply = envoy.reply(data);
    if (reply !== null) {
      const key = `${reply.family} ${reply.requestId}`;
      const exchange = waiting.get(key);
      waiting.delete(key);
      exchange.reply = reply;
      const rule = this.holding.get(exchange.actorId);
      if (rule?.exchange === exchange && rule.at === "reply") return rule.reached();
    }
    down.send(data);
  }
}
