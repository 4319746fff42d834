// Alert rules, the channels that they tell, and messages that did not arrive.
import { ask, get } from "./api.js";
import { day, h, table } from "./dom.js";

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const number = (text) => (text === "" ? null : Number(text));
const path = (kind, name) => `/v1/${kind}/${encodeURIComponent(name)}`;

export async function rules(main, state) {
  const place = h("div", {});
  const status = h("p", { role: "status" });
  const again = async () => {
    const [all, channels, lost] = await Promise.all([get("/v1/rules"), get("/v1/channels"), get("/v1/deliveries?state=dead")]);
    place.replaceChildren(
      all.length ? table("Rules", ["Name", "Fires for", "Tells", ""], all.map((r) => [
        r.name, summary(r), tells(r), remove("rules", r.name)])) : h("p", {}, "There is no rule yet: nobody is told of anything."),
      channels.length ? ruleForm(channels, state.me.labels.slice(1), save("rules")) : h("p", {}, "A rule needs a channel to tell."),
      h("h2", {}, "Channels"),
      channels.length ? table("How somebody is told", ["Name", "Kind", "To", "", ""], channels.map((c) => [
        c.name, c.kind, c.url ?? (c.to ? c.to.join(", ") : `${c.host}:${c.port}`),
        h("button", { type: "button", onclick: () => run(ask("POST", `${path("channels", c.name)}/test`), `A test was sent to ${c.name}.`, async () => {}) }, `Test ${c.name}`),
        remove("channels", c.name)])) : null,
      ...channelForms(save("channels")),
      ...(lost.length ? [h("h2", {}, "Messages that did not arrive"), table("Given up", ["When", "Channel", "Event", "Why", ""], lost.map((d) => [
        day(d.made_at), d.channel, h("a", { href: `#events/${d.event_id}` }, `${d.event_id} (${d.kind})`), d.error,
        h("button", { type: "button", onclick: () => run(ask("POST", `/v1/deliveries/${d.id}/retry`), "It is sent again.") }, `Send message ${d.id} again`)]))] : []));
  };
  // What is said comes last: who reads it may go on, and nothing is replaced under their hands.
  const run = async (promise, done, after = again) => {
    try {
      await promise;
    } catch (error) {
      return state.problem(error);
    }
    state.problem(null);
    // Done is done, also where the lists cannot be fetched again.
    await after().catch(state.problem);
    status.textContent = done;
  };
  const save = (kind) => (made) => run(ask("PUT", path(kind, made.name), made), `${made.name} is saved.`);
  const remove = (kind, name) => h("button", { type: "button", onclick: () => run(ask("DELETE", path(kind, name)), `${name} is removed.`) }, `Remove ${name}`);
  main.append(h("h1", {}, "Rules"), status, place);
  await again();
}

function summary(r) {
  const parts = [r.behaviours.length ? r.behaviours.join(" or ") : "everything", `at ${r.cameras.join(", ")}`];
  if (r.confidence) parts.push(`sure: ${Math.round(100 * r.confidence)} %`);
  if (r.dwell_s) parts.push(`for ${r.dwell_s} s`);
  if (r.people) parts.push(`${r.people} people or more`);
  if (r.zone) parts.push(`in a zone of ${r.zone.length} corners`);
  if (r.days.length < 7) parts.push(r.days.map((d) => DAYS[d]).join(" "));
  if (r.hours.length) parts.push(r.hours.join(", "));
  if (r.quiet_hours.length) parts.push(`not ${r.quiet_hours.join(", ")}`);
  if (r.hours.length || r.quiet_hours.length) parts.push(r.timezone);
  return `${parts.join(", ")}${r.enabled ? "" : " (off)"}`;
}

function tells(r) {
  return r.to.join(", ") + (r.escalate_after_s ? `; after ${r.escalate_after_s} s ${r.escalate_to.join(", ")}` : "");
}

const field = (label, name, more = {}) => h("label", {}, label, h("input", { name, autocomplete: "off", ...more }));
const choice = (label, name, options) => h("label", {}, label,
  h("select", { name, multiple: true, size: String(Math.min(4, Math.max(2, options.length))) }, options.map((o) => h("option", {}, o))));

function ruleForm(channels, behaviours, save) {
  const names = channels.map((c) => c.name);
  const zone = zoneField();
  const send = (e) => {
    e.preventDefault();
    const f = new FormData(e.target);
    const escalate = number(f.get("escalate_after_s"));
    save({
      name: f.get("name"), cameras: words(f.get("cameras")), behaviours: f.getAll("behaviours"), to: f.getAll("to"),
      confidence: Number(f.get("confidence")) / 100, dwell_s: Number(f.get("dwell_s")), people: Number(f.get("people")),
      cooldown_s: Number(f.get("cooldown_s")), hours: words(f.get("hours")), quiet_hours: words(f.get("quiet_hours")),
      timezone: f.get("timezone"), days: f.getAll("days").length ? f.getAll("days").map((d) => DAYS.indexOf(d)) : undefined,
      zone: zone.corners(), escalate_after_s: escalate, escalate_to: escalate === null ? [] : f.getAll("escalate_to"),
    });
  };
  return h("details", {}, h("summary", {}, "New rule, or another form of one"), h("form", { class: "line", onsubmit: send },
    field("Name", "name", { required: true }), field("Cameras (patterns)", "cameras", { value: "*", required: true }),
    choice("Behaviours (none: all)", "behaviours", behaviours), choice("Tells", "to", names),
    field("Least sure, %", "confidence", { type: "number", min: "0", max: "100", value: "0" }),
    field("Has to go on, s", "dwell_s", { type: "number", min: "0", step: "any", value: "0" }),
    field("People at least", "people", { type: "number", min: "0", max: "5", value: "0" }),
    field("Rests per camera, s", "cooldown_s", { type: "number", min: "0", step: "any", value: "0" }),
    choice("Days (none: all)", "days", DAYS),
    field("Hours", "hours", { placeholder: "22:00-06:00" }), field("Quiet hours", "quiet_hours", { placeholder: "12:00-13:00" }),
    field("Time zone", "timezone", { value: Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC" }),
    field("If not acknowledged, after s", "escalate_after_s", { type: "number", min: "0.1", step: "any" }),
    choice("tell, too", "escalate_to", names), zone.place, h("button", { class: "main" }, "Save rule")));
}

// A zone's corners, typed as shares of the picture, or clicked.
function zoneField() {
  const text = h("input", { name: "zone", placeholder: "0.1,0.5 0.9,0.5 0.5,1", autocomplete: "off" });
  const canvas = h("canvas", { class: "zone", width: "160", height: "120", role: "img", "aria-label": "The zone; its corners stand in the field" });
  const corners = () => {
    const found = text.value.trim().split(/\s+/).filter(Boolean).map((pair) => pair.split(",").map(Number));
    return found.length ? found : null;
  };
  const draw = () => {
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 3;
    pen.beginPath();
    for (const [x, y] of corners() ?? []) pen.lineTo(x * canvas.width, y * canvas.height);
    pen.closePath();
    pen.stroke();
  };
  text.addEventListener("input", draw);
  canvas.addEventListener("click", (e) => {
    text.value = `${text.value} ${(e.offsetX / canvas.clientWidth).toFixed(2)},${(e.offsetY / canvas.clientHeight).toFixed(2)}`.trim();
    draw();
  });
  return { place: h("div", {}, h("label", {}, "Zone (corners x,y)", text), canvas), corners };
}

function channelForms(save) {
  const form = (kind, title, fields, shape) => h("details", {}, h("summary", {}, title), h("form", {
    class: "line",
    onsubmit: (e) => {
      e.preventDefault();
      const f = Object.fromEntries([...new FormData(e.target)].filter(([, v]) => v !== ""));
      save({ kind, ...f, ...shape(f) });
    },
  }, field("Name", "name", { required: true }), fields, h("button", { class: "main" }, "Save channel")));
  const account = [field("User", "user"), field("Password", "password", { type: "password", autocomplete: "new-password" })];
  return [
    form("webhook", "New webhook", [field("URL", "url", { type: "url", required: true }), field("Secret (whsec_…)", "secret")], () => ({})),
    form("mqtt", "New MQTT broker (Home Assistant)", [field("Host", "host", { required: true }),
      field("Port", "port", { type: "number", value: "1883" }), ...account,
      h("label", {}, "TLS", h("input", { type: "checkbox", name: "tls" }))], (f) => ({ port: Number(f.port), tls: f.tls === "on" })),
    form("email", "New mail", [field("Server", "host", { required: true }), field("Port", "port", { type: "number", value: "587" }),
      h("label", {}, "Security", h("select", { name: "security" }, ["starttls", "tls", "none"].map((s) => h("option", {}, s)))),
      ...account.map((a) => a.cloneNode(true)), field("From", "sender", { type: "email", required: true }),
      field("To", "to", { required: true })], (f) => ({ port: Number(f.port), to: words(f.to) })),
  ];
}
