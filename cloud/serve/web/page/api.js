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

const AGAIN_MS = 3000;

// Calls `hear(kind, data)` for each message of those kinds until it is closed, and `lost(whether)` as the connection goes and comes.
export function listen(path, kinds, hear, lost = () => {}) {
  let source = null;
  let timer = null;
  const open = () => {
    source = new EventSource(path);
    source.addEventListener("open", () => lost(false));
    source.addEventListener("error", () => {
      lost(true);
      // A browser tries again by itself, but not where it was refused.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, AGAIN_MS);
    });
    for (const kind of kinds) source.addEventListener(kind, (message) => hear(kind, JSON.parse(message.data)));
  };
  open();
  return {
    close() {
      clearTimeout(timer);
      source.close();
    },
  };
}
