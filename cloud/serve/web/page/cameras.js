// Cameras: whether they send, and what their privacy ledgers have counted.
import { ask, get } from "./api.js";
import { day, h, table } from "./dom.js";

export async function cameras(main, state) {
  const place = h("div", {});
  main.append(h("h1", {}, "Cameras"), place);
  await show(place, state);
}

async function show(place, state) {
  const found = await get("/v1/cameras");
  const remove = async (id) => {
    if (!confirm(`Delete all that is kept of ${id}: features, events, notes? It cannot be undone.`)) return;
    await ask("DELETE", `/v1/cameras/${encodeURIComponent(id)}`).then(() => state.problem(null), state.problem);
    await show(place, state);
  };
  const rows = found.map((c) => [
    c.camera_id,
    h("span", { class: `badge ${c.sending ? "calm" : "away"}` }, c.sending ? "sending" : "away"),
    day(c.seen_at),
    c.profile ?? "unknown",
    c.ledger_releases,
    Math.round(c.ledger_bits),
    c.ledger_went_back ? h("span", { class: "badge alert" }, "went back") : "good",
    c.certificate ? h("a", { href: `/v1/boots/${c.boot_id}/certificate` }, "certificate") : "none yet",
    ...(state.may("admin") ? [h("button", { type: "button", onclick: () => remove(c.camera_id) }, `Delete ${c.camera_id}`)] : []),
  ]);
  place.replaceChildren(table("Each camera's latest run",
    ["Camera", "State", "Last heard", "Profile", "Releases", "Bits", "Ledger", "Certificate", ...(state.may("admin") ? [""] : [])], rows));
}
