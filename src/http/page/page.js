// Which view is shown, by the part of the address after #. Each view gets a signal that ends it.
import { el, get, key, notice, table, time } from "./api.js";
import { form } from "./form.js";
import { job, progress, status } from "./job.js";

const main = document.getElementById("main");
let leaving = new AbortController();

const pause = (ms, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
});

async function jobs(view, signal) {
  const place = el("div", {}, el("p", { class: "quiet" }, "Loading…"));
  view.append(el("h2", {}, "Jobs"), place);
  while (!signal.aborted) {
    const list = await get("v1/jobs?limit=50", { signal });
    const row = (it) => [
      el("a", { href: `#/jobs/${it.id}` }, it.id.slice(0, 13), el("span", { class: "hidden-text" }, it.id.slice(13))),
      it.spec.model, status(it), it.status === "running" ? progress(it) : "", time(it.created_at),
    ];
    const focused = document.activeElement?.getAttribute("href");
    place.replaceChildren(list.data.length
      ? table("Newest first", ["Job", "Model", "Status", "Progress", "Submitted"], list.data.map(row), "stacked")
      : el("p", {}, "There are no jobs yet. ", el("a", { href: "#/new" }, "Submit one"), "."));
    if (focused) place.querySelector(`a[href="${focused}"]`)?.focus();
    await pause(2000, signal);
  }
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const path = location.hash.replace(/^#\/?/, "");
  const view = el("div");
  main.replaceChildren(view);
  notice("");
  const name = path === "new" ? "New job" : path.startsWith("jobs/") ? `Job ${path.slice(5, 18)}` : "Jobs";
  document.title = `${name} · graspd`;
  try {
    if (path === "new") await form(view, signal);
    else if (path.startsWith("jobs/")) await job(view, path.slice(5), signal);
    else await jobs(view, signal);
  } catch (error) {
    if (signal.aborted) return;
    notice(error.status === 401 ? "This service wants a key: enter one above." : error.message);
    // The server may be away for a moment; a wrong key or an unknown job stays.
    if (!error.status || error.status >= 500) {
      await pause(3000, signal);
      if (!signal.aborted) show();
    }
  }
}

const input = document.getElementById("key");
input.value = key.get();
document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(input.value.trim());
  show();
});
addEventListener("hashchange", () => { main.focus(); show(); });
show();
