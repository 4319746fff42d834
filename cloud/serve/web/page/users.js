// Who may do what, and who did what.
import { ask, get } from "./api.js";
import { day, h, table } from "./dom.js";

const ROLES = ["viewer", "operator", "admin"];
const roles = (chosen, onchange, label) => h("select", { onchange, "aria-label": label },
  ROLES.map((r) => h("option", { value: r, selected: r === chosen }, r)));

export async function users(main, state) {
  const place = h("div", {});
  const secret = h("p", { role: "status" });
  const again = async () => {
    const [people, tokens] = await Promise.all([get("/v1/users"), get("/v1/tokens")]);
    const after = (promise) => promise.then(() => state.problem(null), state.problem).then(again);
    place.replaceChildren(
      table("Users", ["Name", "Role", "Since", ""], people.map((u) => [
        u.name,
        roles(u.role, (e) => after(ask("PATCH", `/v1/users/${encodeURIComponent(u.name)}`, { role: e.target.value })), `role of ${u.name}`),
        day(u.created_at),
        h("button", { type: "button", onclick: () => after(ask("DELETE", `/v1/users/${encodeURIComponent(u.name)}`)) }, `Remove ${u.name}`),
      ])),
      h("form", { class: "line", onsubmit: (e) => send(e, (f) => after(ask("POST", "/v1/users", f))) },
        h("label", {}, "Name", h("input", { name: "name", required: true, autocomplete: "off" })),
        h("label", {}, "Password", h("input", { name: "password", type: "password", required: true, minlength: "10", autocomplete: "new-password" })),
        h("label", {}, "Role", h("select", { name: "role" }, ROLES.map((r) => h("option", {}, r)))), h("button", {}, "Add user")),
      table("Tokens of programs", ["Name", "Role", "Made by", "Good until", ""], tokens.map((t) => [
        t.name, t.role, `${t.created_by}, ${day(t.created_at)}`, t.expires_at ? day(t.expires_at) : "removed",
        h("button", { type: "button", onclick: () => after(ask("DELETE", `/v1/tokens/${encodeURIComponent(t.name)}`)) }, `Remove ${t.name}`),
      ])),
      h("form", { class: "line", onsubmit: (e) => send(e, (f) => after(ask("POST", "/v1/tokens", f).then((made) => {
        secret.textContent = `The token ${made.name}, shown this once: ${made.secret}`;
      }))) },
        h("label", {}, "Name", h("input", { name: "name", required: true, autocomplete: "off" })),
        h("label", {}, "Role", h("select", { name: "role" }, ROLES.map((r) => h("option", {}, r)))), h("button", {}, "New token")));
  };
  main.append(h("h1", {}, "Users"), place, secret);
  await again();
}

function send(event, go) {
  event.preventDefault();
  go(Object.fromEntries(new FormData(event.target)));
}

export async function log(main) {
  const rows = (await get("/v1/audit?limit=500")).map((a) => [day(a.at), a.who, a.action, a.object]);
  main.append(h("h1", {}, "Who saw what"), table("Newest first", ["When", "Who", "Did", "What"], rows));
}
