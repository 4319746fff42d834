// Cameras: whether they send, and what their privacy ledgers have counted.
import { get } from "./api.js";
import { day, h, table } from "./dom.js";

export async function cameras(main) {
  const found = await get("/v1/cameras");
  const rows = found.map((c) => [
    c.camera_id,
    h("span", { class: `badge ${c.sending ? "calm" : "away"}` }, c.sending ? "sending" : "away"),
    day(c.seen_at),
    c.profile ?? "unknown",
    c.ledger_releases,
    Math.round(c.ledger_bits),
    c.ledger_went_back ? h("span", { class: "badge alert" }, "went back") : "good",
    c.certificate ? h("a", { href: `/v1/boots/${c.boot_id}/certificate` }, "certificate") : "none yet",
  ]);
  main.append(h("h1", {}, "Cameras"), table("Each camera's latest run",
    ["Camera", "State", "Last heard", "Profile", "Releases", "Bits", "Ledger", "Certificate"], rows));
}
