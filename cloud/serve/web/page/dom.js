// Elements without a word of HTML in a string: what comes from outside is only ever text.

// h("button", {class: "main", onclick: f}, "Text", another)
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return element;
}

export const time = (iso) => new Date(iso).toLocaleTimeString();
export const day = (iso) => new Date(iso).toLocaleString();
export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`);

export function table(caption, heads, rows) {
  const head = h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text))));
  const body = h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map(cell))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), head, body));
}

const cell = (content) => (typeof content === "number" ? h("td", { class: "number" }, content.toLocaleString()) : h("td", {}, content));
