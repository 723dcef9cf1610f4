// An actor that looks at who connects and how it was created.
import { actor, UserError } from "rivetkit";

export const guarded = actor({
  createState: (_, input) => ({ input: input ?? null }),
  onBeforeConnect: (_, params) => {
    if (params?.password === "wrong") throw new UserError("not for you", { code: "no_entry" });
  },
  createConnState: (_, params) => ({ name: params?.name ?? null }),
  onRequest: async (c, request) => {
    const url = new URL(request.url);
    const name = c.conn?.state.name ?? null;
    if (url.pathname === "/who") return Response.json({ name, headers: [...request.headers] });
    let bytes = 0;
    for await (const chunk of request.body) bytes += chunk.byteLength;
    return Response.json({ bytes });
  },
  onWebSocket: (c, socket) => {
    socket.addEventListener("message", (event) => {
      socket.send(event.data === "who" ? String(c.conn?.state.name) : event.data);
    });
  },
  actions: {
    who: (c) => c.conn.state.name,
    input: (c) => c.state.input,
    nap: (c) => {
      c.sleep();
      return true;
    },
    destroy: (c) => {
      c.destroy();
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});
