// One job: where it stands, what came of it, its log and its files.
import { bytes, count, el, get, key, notice, post, request, table, time } from "./api.js";
import { plots } from "./plots.js";

export const status = (job) => el("span", { class: `status ${job.status}` },
  job.status, job.cancel_requested ? " (cancelling)" : job.pause_requested ? " (pausing)" : "");

export function progress(job) {
  if (!job.progress) return "";
  const { done, total, layer, part, training } = job.progress;
  const learning = training
    ? `loss ${training.loss.toFixed(3)}, ${Math.round(training.tokens_per_second)} tokens/s,` : null;
  const where = [job.stage, layer != null ? `layer ${layer}` : null, part, learning].filter(Boolean).join(" ");
  const label = `${where} ${count(done)} of ${count(total)}`;
  return el("span", {}, el("progress", { max: Math.max(total, 1), value: done, "aria-label": label }), ` ${label}`);
}

const over = (job) => ["succeeded", "failed", "cancelled"].includes(job.status);

function actions(job, refresh) {
  const act = (verb, text) => el("button", {
    type: "button",
    onclick: () => post(`v1/jobs/${job.id}/${verb}`).then(refresh).catch((error) => notice(error.message)),
  }, text);
  const waits = ["queued", "running"].includes(job.status);
  return el("div", { class: "row" },
    waits && !job.pause_requested ? act("pause", "Pause") : null,
    job.status === "paused" || job.status === "failed" || job.pause_requested ? act("resume", "Resume") : null,
    over(job) ? null : act("cancel", "Cancel"),
    over(job) ? el("button", { type: "button", onclick: () => remove(job) }, "Delete") : null);
}

async function remove(job) {
  if (!confirm("Delete the job and all its files?")) return;
  try {
    await request(`v1/jobs/${job.id}`, { method: "DELETE" });
    location.hash = "#/";
  } catch (error) {
    notice(error.message);
  }
}

function facts(job) {
  const line = (term, text) => (text === "" || text == null ? [] : [el("dt", {}, term), el("dd", {}, text)]);
  return el("dl", {},
    line("Status", status(job)), line("Progress", over(job) ? null : progress(job)),
    line("Stage ends about", over(job) ? null : time(job.stage_eta)),
    line("Job ends about", over(job) ? null : time(job.eta)),
    line("Model", job.spec.model), line("Submitted", time(job.created_at)), line("Started", time(job.started_at)),
    line("Ended", time(job.finished_at)), line("Attempts", job.attempt),
    line("Error", job.error ? el("span", { class: "error" }, `${job.error.code}: ${job.error.message}`) : null));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(path, name) {
  const sent = key.get() ? ' -H "authorization: Bearer $GRASPD_KEY"' : "";
  const url = new URL(path.replace(/^\//, ""), document.baseURI.split("#")[0]);
  return `curl -C - -o ${quoted(name.split("/").pop())}${sent} ${quoted(url.href)}`;
}

function copy(text, name) {
  const button = el("button", { type: "button", "aria-label": `Copy the curl line for ${name}` }, "Copy curl");
  const line = el("code", {}, text);
  button.addEventListener("click", async () => {
    const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    // Browsers keep the clipboard from pages that come without TLS: the line is selected then.
    if (!copied) getSelection().selectAllChildren(line);
    button.textContent = copied ? "Copied" : "Selected";
  });
  return el("span", { class: "row" }, button, line);
}

// A link cannot carry a key: with one the file goes through the page, so large ones are better fetched with curl.
async function download(path, name) {
  const blob = await (await request(path.replace(/^\//, ""))).blob();
  const link = el("a", { href: URL.createObjectURL(blob), download: name.split("/").pop() });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function files(job, list) {
  const link = (path, name) => (key.get()
    ? el("button", { type: "button", onclick: () => download(path, name).catch((error) => notice(error.message)) }, name)
    : el("a", { href: path.replace(/^\//, ""), download: name.split("/").pop() }, name));
  const archive = `/v1/jobs/${job.id}/archive`;
  const rows = list.data.map((it) => [link(it.url, it.name), bytes(it.bytes), el("code", {}, it.sha256), copy(curl(it.url, it.name), it.name)]);
  rows.push([link(archive, `${job.id}.tar`), "", "all of them", copy(curl(archive, `${job.id}.tar`), "everything")]);
  const heads = ["Name", { text: "Size", number: true }, "SHA-256", "For a terminal"];
  return table("Published files", heads, rows, "stacked");
}

function scores(report) {
  const shown = (value) => (value == null ? "" : Number(value.toPrecision(5)));
  const rows = Object.entries(report.evaluation?.perplexity ?? {})
    .map(([name, it]) => [`perplexity, ${name}`, shown(it.before), shown(it.after), shown(it.recovered)]);
  const kept = report.recovery?.held_out;
  if (kept) {
    const value = (loss) => shown(loss == null ? null : Math.exp(loss));
    rows.push(["perplexity, kept back of the training data", value(kept.before), value(kept.after), value(kept.recovered)]);
  }
  for (const [name, it] of Object.entries(report.evaluation?.tasks ?? {})) {
    const value = (side) => shown(it[side]?.acc_norm ?? it[side]?.acc ?? it[side]);
    rows.push([`accuracy, ${name}`, value("before"), value("after"), value("recovered")]);
  }
  for (const [name, it] of Object.entries(report.evaluation?.generation ?? {})) {
    for (const metric of Object.keys(it.after).filter((key) => !key.endsWith("_stderr"))) {
      rows.push([`${metric}, ${name}`, shown(it.before?.[metric]), shown(it.after[metric]), shown(it.recovered?.[metric])]);
    }
  }
  rows.push(["parameters", count(report.parameters.before), count(report.parameters.after), ""]);
  rows.push(["bytes of safetensors", count(report.bytes.before), count(report.bytes.after), ""]);
  const columns = ["Before", "After", "Recovered"].slice(0, report.recovery ? 3 : 2);
  const heads = columns.map((text) => ({ text, number: true }));
  return table("Scores and sizes", ["", ...heads], rows.map((row) => row.slice(0, 1 + columns.length)));
}

async function results(place, job, signal) {
  const list = await get(`v1/jobs/${job.id}/artifacts`, { signal });
  const report = await get(`v1/jobs/${job.id}/report`, { signal });
  const listed = list.data.find((it) => it.name === "singular_values.json");
  const values = listed ? await get(listed.url.replace(/^\//, ""), { signal }) : null;
  const drawn = el("div", { class: "plots" });
  place.replaceChildren(
    scores(report), el("h3", {}, "Plots"), drawn, files(job, list),
    report.notes?.length ? el("ul", { class: "quiet" }, report.notes.map((note) => el("li", {}, note))) : "");
  if (report.layers) plots(drawn, report, values, signal);
}

async function log(place, id, signal) {
  const reply = await request(`v1/jobs/${id}/logs?follow=1`, { signal });
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const last = place.scrollHeight - place.scrollTop - place.clientHeight < 20;
    place.textContent = (place.textContent + value).slice(-200_000);
    if (last) place.scrollTop = place.scrollHeight;
  }
}

export async function job(view, id, signal) {
  const top = el("div", { role: "status", "aria-live": "polite" });
  const buttons = el("div");
  const found = el("div");
  const text = el("pre", { tabindex: 0, "aria-label": "Log" });
  view.append(el("h2", {}, "Job ", el("code", {}, id)), top, buttons, found, el("h3", {}, "Log"), text);
  let tag = "";
  let shown = "";
  log(text, id, signal).catch(() => {});
  while (!signal.aborted) {
    const headers = tag ? { "if-none-match": tag, prefer: "wait=30" } : {};
    const reply = await request(`v1/jobs/${encodeURIComponent(id)}`, { headers, signal });
    if (reply.status === 304) continue;
    tag = reply.headers.get("etag");
    const it = await reply.json();
    top.replaceChildren(facts(it));
    const state = `${it.status} ${it.cancel_requested} ${it.pause_requested}`;
    if (state !== shown) {
      shown = state;
      buttons.replaceChildren(actions(it, () => {}));
      if (it.status === "succeeded") await results(found, it, signal);
    }
  }
}
