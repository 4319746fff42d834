// The page: logging in, the views, and the alerts above them.
import { ask, get, listen, Refused } from "./api.js";
import { cameras } from "./cameras.js";
import { h, time } from "./dom.js";
import { events } from "./events.js";
import { rules } from "./rules.js";
import { log, users } from "./users.js";
import { wall } from "./wall.js";

const VIEWS = {
  wall: { title: "Live", role: "viewer", show: wall },
  events: { title: "Events", role: "viewer", show: events },
  cameras: { title: "Cameras", role: "viewer", show: cameras },
  rules: { title: "Rules", role: "admin", show: rules },
  users: { title: "Users", role: "admin", show: users },
  log: { title: "Log", role: "admin", show: log },
};
const ROLES = ["viewer", "operator", "admin"];
const CHANGES = ["begin", "update", "end", "acknowledge", "judge", "note"];
const byId = (id) => document.getElementById(id);

const state = {
  me: null,
  hearing: new Set(),
  may: (role) => ROLES.indexOf(state.me.role) >= ROLES.indexOf(role),
  problem: (error) => {
    byId("problem").hidden = !error;
    byId("problem").textContent = error ? error.message : "";
  },
};
let leave = null;
let turn = 0;
let stream = null;
const open = new Map();

async function show() {
  const mine = ++turn;
  leave?.();
  leave = null;
  const [name, id] = location.hash.slice(1).split("/");
  const view = VIEWS[name] && state.may(VIEWS[name].role) ? name : "wall";
  for (const link of byId("views").children) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[view].title} – ruyicam`;
  const place = h("div", {});
  byId("main").replaceChildren(place);
  state.problem(null);
  const left = await VIEWS[view].show(place, state, id ? Number(id) : null);
  // Someone has gone on meanwhile.
  if (mine === turn) leave = left ?? null;
  else left?.();
}

function showAlerts() {
  byId("alerts").hidden = open.size === 0;
  byId("alerts").replaceChildren(h("ul", {}, [...open.values()].sort((a, b) => b.id - a.id).slice(0, 20).map((event) =>
    h("li", { "data-event": event.id },
      h("strong", {}, `${event.behaviour} at ${event.camera_id}`),
      h("span", {}, `${time(event.begin)}${event.ended ? "" : ", going on"}`),
      h("a", { href: `#events/${event.id}` }, `Look at it`),
      state.may("operator") ? h("button", { type: "button", onclick: () => ask("POST", `/v1/events/${event.id}/acknowledge`) },
        "Acknowledge") : null))));
}

function heard(kind, change) {
  const event = change.event;
  if (event.care.acknowledged_at || event.care.label !== null) open.delete(event.id);
  else open.set(event.id, event);
  if (kind === "begin") byId("said").textContent = `${event.behaviour} at ${event.camera_id}`;
  showAlerts();
  for (const hear of state.hearing) hear(change);
}

async function enter() {
  state.me = await get("/v1/me");
  byId("who").textContent = `${state.me.name}, ${state.me.role}`;
  byId("logout").hidden = state.me.name === "everyone";
  byId("views").hidden = false;
  byId("views").replaceChildren(...Object.entries(VIEWS).filter(([, v]) => state.may(v.role))
    .map(([name, v]) => h("a", { href: `#${name}` }, v.title)));
  stream = listen("/v1/events/stream", CHANGES, heard, lost);
  await askAlerts();
  await show();
}

// Those of the last hour that nobody has seen to; what comes while we ask is heard on the stream.
async function askAlerts() {
  const since = Math.round((Date.now() - 3600e3) * 1000);
  for (const event of await get(`/v1/events?alerts=true&since_us=${since}&limit=200`)) {
    if (!event.care.acknowledged_at && event.care.label === null && !open.has(event.id)) open.set(event.id, event);
  }
  showAlerts();
}

// Who looks at this page relies on being told: a connection that is gone is said, and asks to log in if that is why.
let away = false;
function lost(gone) {
  if (gone) {
    state.problem(new Error("The connection to the service is lost: nothing new is shown. Trying again."));
    get("/v1/me").catch((error) => error instanceof Refused && failed(error));
  } else if (away) {
    state.problem(null);
    askAlerts().catch(failed);
  }
  away = gone;
}

// What became of a log-in elsewhere.
const LOGINS = {
  refused: "You are known there, but have no role here. Ask an administrator.",
  failed: "The log-in did not work. Try again.",
  away: "Where you log in does not answer. Try again later.",
};

function login() {
  stream?.close();
  if (away) state.problem(null);
  away = false;
  leave?.();
  leave = state.me = null;
  open.clear();
  byId("alerts").hidden = byId("views").hidden = byId("logout").hidden = true;
  byId("who").textContent = "";
  document.title = "Log in – ruyicam";
  const name = h("input", { name: "name", autocomplete: "username", required: true });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  byId("main").replaceChildren(h("form", {
    class: "login",
    onsubmit: async (e) => {
      e.preventDefault();
      try {
        await ask("POST", "/v1/login", { name: name.value, password: password.value });
        state.problem(null);
        await enter();
      } catch (error) {
        state.problem(error);
      }
    },
  }, h("h1", {}, "Log in"), h("label", {}, "Name", name), h("label", {}, "Password", password), h("button", { class: "main" }, "Log in")));
  name.focus();
  const said = LOGINS[new URLSearchParams(location.search).get("login")];
  if (said) {
    state.problem(new Error(said));
    history.replaceState(null, "", "/");
  }
  get("/v1/login").then((ways) => ways.oidc && name.form?.append(
    h("p", {}, h("a", { href: "/v1/oidc/login" }, `Log in with ${ways.oidc}`)))).catch(() => null);
}

const failed = (error) => (error instanceof Refused && error.status === 401 ? login() : state.problem(error));
addEventListener("hashchange", () => state.me && show().catch(failed));
addEventListener("unhandledrejection", (e) => failed(e.reason));
byId("logout").addEventListener("click", () => ask("POST", "/v1/logout").finally(login));
byId("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* not kept, then */ }
});
try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch { /* as the system has it */ }
enter().catch(failed);
