// The engine's management API over plain fetch.

/** One request. `body` is sent as JSON. Returns status, headers, text and (where it parses) json. */
export async function call(endpoint, method, path, body) {
  const answer = await fetch(endpoint + path, {
    method,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Not every answer is JSON; the caller sees the text.
  }
  return { status: answer.status, headers: answer.headers, text, json };
}
