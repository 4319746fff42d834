// The wall: what every camera shows at the moment.
import { get, listen } from "./api.js";
import { h, percent, time } from "./dom.js";
import { LivePlayer } from "./figure.js";

export async function wall(main, state) {
  const cards = new Map();
  const list = h("ul", { class: "wall" });
  const none = h("p", {}, "No camera has been heard yet.");
  main.append(h("h1", {}, "Live"), none, list);

  const card = (id) => {
    if (cards.has(id)) return cards.get(id);
    none.hidden = true;
    const canvas = h("canvas", { role: "img", "aria-label": `${id}: nobody` });
    const badge = h("span", { class: "badge away" }, "away");
    const text = h("p", {}, " ");
    const item = h("li", { class: "camera", "data-camera": id }, h("h2", {}, h("span", {}, id), badge), canvas, text);
    const made = { item, canvas, badge, text, player: new LivePlayer(canvas), heard: 0 };
    cards.set(id, made);
    list.append(item);
    return made;
  };
  const mark = (made, kind, text) => {
    made.badge.className = `badge ${kind}`;
    made.badge.textContent = text;
    made.item.classList.toggle("alert", kind === "alert");
  };

  for (const camera of await get("/v1/cameras")) {
    const made = card(camera.camera_id);
    mark(made, camera.sending ? "calm" : "away", camera.sending ? "sending" : "away");
    made.text.textContent = `last heard ${time(camera.seen_at)}`;
  }
  const stream = listen("/v1/live", ["reading"], (_, said) => {
    const made = card(said.camera_id);
    const quiet = said.behaviour === state.me.labels[0];
    const people = said.people === null ? "" : `, ${said.people} ${said.people === 1 ? "person" : "people"}`;
    made.heard = Date.now();
    mark(made, quiet ? "calm" : "alert", said.behaviour);
    made.text.textContent = `${time(said.captured_at * 1000)}${people}, sure: ${percent(said.confidence)}`;
    made.canvas.setAttribute("aria-label", `${said.camera_id}: ${said.behaviour}${people}`);
    made.player.push(said.contour, said.rate_hz);
  });
  const watch = setInterval(() => {
    for (const made of cards.values()) {
      if (made.heard && Date.now() - made.heard > 15000) {
        made.heard = 0;
        mark(made, "away", "away");
      }
    }
  }, 1000);
  return () => {
    stream.close();
    clearInterval(watch);
    for (const made of cards.values()) made.player.stop();
  };
}
