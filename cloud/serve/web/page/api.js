// Requests to the service, and its streams.

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// A request with a JSON body, if any; gives the JSON of the answer.
export async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const detail = Array.isArray(said.detail) ? said.detail.map((d) => `${d.loc.at(-1)}: ${d.msg}`).join("; ") : said.detail;
  throw new Refused(answer.status, detail ?? `the service answered ${answer.status}`);
}

export const get = (path) => ask("GET", path);

// Calls `hear(kind, data)` for each message of those kinds until it is closed.
export function listen(path, kinds, hear) {
  const source = new EventSource(path);
  for (const kind of kinds) source.addEventListener(kind, (message) => hear(kind, JSON.parse(message.data)));
  return source;
}
