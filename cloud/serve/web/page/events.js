// The timeline of events, and one event: what happened, its contour again, and what is done about it.
import { ask, get } from "./api.js";
import { day, h, percent, time } from "./dom.js";
import { Figure } from "./figure.js";

const careOf = (event, quiet) => {
  if (event.care.label !== null) return event.care.label === quiet ? "false alarm" : `was ${event.care.label}`;
  return event.care.acknowledged_at ? `acknowledged by ${event.care.acknowledged_by}` : "new";
};

export async function events(main, state, id) {
  const quiet = state.me.labels[0];
  const chosen = { camera: "", alerts: true };
  const list = h("ul", { class: "list", "aria-label": "Events, newest first" });
  const detail = h("section", { class: "detail", "aria-label": "Event", hidden: !id });
  const cameras = await get("/v1/cameras");
  const which = h("select", { onchange: (e) => { chosen.camera = e.target.value; fill(); } },
    h("option", { value: "" }, "all cameras"), cameras.map((c) => h("option", { value: c.camera_id }, c.camera_id)));
  const all = h("input", { type: "checkbox", onchange: (e) => { chosen.alerts = !e.target.checked; fill(); } });
  main.append(h("h1", {}, "Events"),
    h("form", { class: "line" }, h("label", {}, "Camera", which), h("label", {}, "Quiet ones, too", all),
      state.may("operator") ? h("a", { href: "/v1/labels", download: "labels.jsonl" }, "Export labels") : null),
    h("div", { class: "events" }, list, detail));

  const row = (event) => h("li", {}, h("a", { href: `#events/${event.id}`, "aria-current": event.id === id ? "true" : false },
    h("span", { class: "top" },
      h("span", { class: `badge ${event.alert ? "alert" : "calm"}` }, event.behaviour), h("span", {}, day(event.begin))),
    h("span", { class: "small" }, `${event.camera_id}, ${event.seconds.toFixed(1)} s, sure: ${percent(event.confidence)}, `
      + `${event.alert ? careOf(event, quiet) : "quiet"}${event.ended ? "" : ", still going on"}`)));
  const fill = async () => {
    const query = new URLSearchParams({ alerts: chosen.alerts, limit: 200 });
    if (chosen.camera) query.set("camera_id", chosen.camera);
    const found = await get(`/v1/events?${query}`);
    list.replaceChildren(...(found.length ? found.map(row) : [h("li", {}, "Nothing has happened.")]));
  };
  await fill();
  let shown = id ? await show(detail, state, id) : null;

  // Looks again when something happened, not more than once a second.
  let due = null;
  const again = (change) => {
    due ??= setTimeout(async () => {
      due = null;
      await fill();
    }, 1000);
    if (shown && change.event.id === id) shown.renew();
  };
  state.hearing.add(again);
  return () => {
    state.hearing.delete(again);
    clearTimeout(due);
    shown?.stop();
  };
}

async function show(detail, state, id) {
  const facts = h("div", {});
  const canvas = h("canvas", { role: "img", "aria-label": "Contour of the event" });
  const figure = new Figure(canvas);
  const at = h("input", { type: "range", min: "0", max: "0", value: "0", "aria-label": "Time within the event" });
  const clock = h("span", { class: "small" }, "");
  const play = h("button", { type: "button" }, "Play");
  const player = h("div", { class: "player" }, canvas, h("div", { class: "controls" }, play, at, clock));

  let ticks = [];
  let rate = 1;
  let timer = null;
  const draw = () => {
    const tick = ticks[at.value];
    if (!tick) return;
    figure.show(tick.people);
    clock.textContent = time(tick.at);
    at.setAttribute("aria-valuetext", `${time(tick.at)}, ${tick.people.length} people`);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  at.addEventListener("input", draw);
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(at.value) >= ticks.length - 1) at.value = 0;
    play.textContent = "Pause";
    timer = setInterval(() => {
      if (Number(at.value) >= ticks.length - 1) return stop();
      at.value = Number(at.value) + 1;
      draw();
    }, 1000 / rate);
  });

  const renew = async () => {
    const event = await get(`/v1/events/${id}`);
    const people = event.people === null ? "unknown" : `at most ${event.people}`;
    facts.replaceChildren(
      h("h2", {}, `${event.behaviour} at ${event.camera_id}`),
      h("p", {}, `${day(event.begin)} to ${time(event.end)}, sure: ${percent(event.confidence)}, people: ${people}, read by ${event.tier}`),
      event.story.length ? h("ol", { "aria-label": "What happened" }, event.story.map((entry) =>
        h("li", {}, `${time(entry.begin)} to ${time(entry.end)}: ${entry.what.join(", ")}`
          + `${entry.who.length ? `, figure ${entry.who.join(" and ")}` : ""}; because ${entry.why} (sure: ${percent(entry.sure)})`))) : null,
      h("p", { class: "small" },
        `The device had released ${event.ledger_bits.toLocaleString(undefined, { maximumFractionDigits: 0 })} bits in `
        + `${event.ledger_releases.toLocaleString()} releases by then. `,
        event.certificate ? h("a", { href: `/v1/boots/${event.boot_id}/certificate` }, "Session certificate") : "There is no session certificate yet."));
    if (event.alert) care.renew(event);
    return event;
  };
  const doing = async (path, body) => {
    await ask("POST", `/v1/events/${id}/${path}`, body);
    await renew();
  };
  const care = caring(state, doing);
  detail.replaceChildren(facts, h("h2", {}, "Contour"), player, care.place);
  detail.hidden = false;
  const event = await renew();
  const contour = await get(`/v1/events/${id}/contour`);
  ({ ticks, rate_hz: rate } = contour);
  at.max = Math.max(0, ticks.length - 1);
  at.value = ticks.findIndex((t) => t.tick >= event.first_tick);
  if (ticks.length) draw();
  else player.replaceChildren(h("p", {}, "The features of this event are no longer stored, or none were released."));
  return { renew, stop };
}

// What is done about an event; what somebody is writing stays when the event goes on.
function caring(state, doing) {
  const [quiet] = state.me.labels;
  const acknowledged = h("p", {});
  const judged = h("p", {});
  const notes = h("ul", { "aria-label": "Notes" });
  const acknowledge = h("button", { type: "button", class: "main", onclick: () => doing("acknowledge") }, "Acknowledge");
  const label = h("select", {}, state.me.labels.map((l) => h("option", { value: l }, l === quiet ? `${l} (false alarm)` : l)));
  const text = h("textarea", { maxlength: "4000", required: true });
  const write = async (e) => {
    e.preventDefault();
    await doing("notes", { text: text.value });
    text.value = "";
  };
  const place = h("div", { hidden: true }, h("h2", {}, "What is done about it"), acknowledged, judged,
    state.may("operator") ? h("div", { class: "actions" }, acknowledge,
      h("button", { type: "button", onclick: () => doing("judgement", { label: quiet }) }, "False alarm"),
      h("label", {}, "It was", label),
      h("button", { type: "button", onclick: () => doing("judgement", { label: label.value }) }, "Save")) : null,
    notes,
    state.may("operator") ? h("form", { onsubmit: write },
      h("label", { class: "wide" }, "Note", text), h("button", {}, "Write note")) : null);
  const renew = (event) => {
    const { care } = event;
    if (place.hidden) label.value = care.label ?? event.behaviour;
    place.hidden = false;
    acknowledge.disabled = care.acknowledged_at !== null;
    acknowledged.textContent = care.acknowledged_at
      ? `Acknowledged by ${care.acknowledged_by}, ${day(care.acknowledged_at)}` : "Nobody has acknowledged it.";
    judged.textContent = care.label ? `It was ${care.label}${care.false_alarm ? " (false alarm)" : ""}, says ${care.judged_by}.` : "";
    notes.replaceChildren(...event.notes.map((n) => h("li", {}, `${n.text} (${n.by}, ${day(n.at)})`)));
  };
  return { place, renew };
}
