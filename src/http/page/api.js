// The API as the page uses it. The key stays in this tab.

export const key = {
  get: () => sessionStorage.getItem("graspd-key") || "",
  set: (value) => (value ? sessionStorage.setItem("graspd-key", value) : sessionStorage.removeItem("graspd-key")),
};

export class Problem extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "no answer");
    Object.assign(this, { code: problem.code, field: problem.field, status: problem.status });
  }
}

export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const reply = await fetch(path, { cache: "no-store", ...options, headers });
  if (reply.ok || reply.status === 304) return reply;
  throw new Problem(await reply.json().catch(() => ({ title: reply.statusText, status: reply.status })));
}

export const get = async (path, options) => (await request(path, options)).json();

export const post = async (path, body) =>
  (await request(path, {
    method: "POST",
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  })).json();

// Small helpers to make elements: el("p", { class: "quiet" }, "text", child, …).
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) element.addEventListener(attribute.slice(2), value);
    else if (value === true) element.setAttribute(attribute, "");
    else if (value !== false && value != null) element.setAttribute(attribute, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

// On a phone the cells of a "stacked" table stand below each other.
export function table(caption, heads, rows, look = "") {
  const cell = (name, value, number, scope) =>
    el(name, { class: number ? "number" : null, scope }, value instanceof Node ? value : String(value ?? ""));
  return el("div", { class: `scroll ${look}`, tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => cell("th", head.text ?? head, head.number, "col")))),
      el("tbody", {}, rows.map((row) => el("tr", {},
        row.map((value, index) => cell("td", value, heads[index].number)))))));
}

const units = ["B", "kB", "MB", "GB", "TB"];
export function bytes(count) {
  if (count == null) return "unknown";
  let unit = 0;
  for (; count >= 1000 && unit < units.length - 1; unit++) count /= 1000;
  return `${count < 10 && unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export const count = (number) => (number == null ? "unknown" : number.toLocaleString("en"));
export const time = (seconds) => (seconds == null ? "" : new Date(seconds * 1000).toLocaleString());

export function duration(seconds) {
  if (seconds == null) return "unknown";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export function notice(text) {
  document.getElementById("notice").textContent = text;
}
