// The form of a new job: fed by /v1/capabilities, checked by /v1/plans while it is filled in.
import { bytes, count, duration, el, get, notice, post, request } from "./api.js";

const number = (text) => (text.trim() === "" ? undefined : Number(text));

// "8" is a number of layers, "3, 7" are those two.
function layers(text) {
  if (text.trim() === "") return undefined;
  return text.includes(",") ? text.split(",").filter((part) => part.trim() !== "").map(Number) : Number(text);
}

function body(fields) {
  const value = (name) => fields[name].value;
  // What is left empty is the preset's.
  const grasp = {
    preset: value("preset"), method: value("method"), layer_metric: value("layer_metric"),
    schedule: value("schedule") || undefined, score: value("score") || undefined, layers: layers(value("layers")),
  };
  if (value("method") !== "remove" || value("size") !== "importance_threshold") grasp[value("size")] = number(value("share"));
  const scored = value("scored");
  return {
    model: value("model"),
    calibration: {
      dataset: value("calibration"), samples: number(value("samples")),
      sequence_length: number(value("sequence_length")),
    },
    grasp,
    evaluation: scored ? { perplexity: [scored], limit: number(value("limit")) } : null,
  };
}

// Where the message of a wrong field belongs.
const places = {
  model: "model", "grasp.layers": "layers", "grasp.retain_ratio": "share", "grasp.importance_threshold": "share",
  "grasp.target_compression": "share", "calibration.dataset": "calibration", "calibration.samples": "samples",
  "calibration.sequence_length": "sequence_length", "evaluation.limit": "limit",
};

function summary(plan) {
  const line = (term, text) => [el("dt", {}, term), el("dd", {}, text)];
  const change = (pair, shown) => (pair ? `${shown(pair.before)} → ${shown(pair.after)}` : "unknown");
  // Where no rank is known, all of them follow from the scores.
  const known = plan.matrices.some((it) => it.rank != null);
  const ranks = known ? plan.matrices.map((it) => `${it.projection} ${it.rank ?? "dense"}`).join(", ") : "chosen by the scores";
  return el("div", {},
    plan.refusals.map((it) => el("p", { class: "error", role: "alert" }, `${it.code}: ${it.message}`)),
    el("dl", {},
      line("Layers", plan.layers ? plan.layers.join(", ") : plan.layer_count ? `the ${plan.layer_count} most redundant` : "unknown"),
      line("Ranks", plan.matrices.length ? ranks : "none"),
      line("Parameters", change(plan.parameters, count)), line("Size", change(plan.bytes, bytes)),
      line("Memory", bytes(plan.memory_bytes)), line("Disk", bytes(plan.disk_bytes)),
      line("Time", `about ${duration(plan.seconds)}`)),
    plan.notes.map((it) => el("p", { class: "quiet" }, it)));
}

export async function form(view, signal) {
  const can = await get("v1/capabilities", { signal });
  const fields = {};
  const place = (name, label, field) => {
    field.id = field.name = name;
    field.setAttribute("aria-describedby", `${name}-error`);
    fields[name] = field;
    return el("label", {}, label, field, el("span", { id: `${name}-error`, class: "error" }));
  };
  const select = (values, chosen, empty) =>
    el("select", {}, values.map((value) => el("option", { value, selected: value === chosen }, value || empty)));
  const input = (value, more = {}) => el("input", { value, ...more });
  const preferred = (list, word) => list.find((it) => it.includes(word)) ?? list[0];
  const planned = el("div", { id: "plan", role: "status", "aria-live": "polite" });
  const models = el("datalist", { id: "models" }, can.models.map((value) => el("option", { value })));
  const job = el("form", { class: "job", novalidate: true },
    place("model", "Model", input(can.models[0] ?? "", { list: "models", required: true })), models,
    place("preset", "Preset", select(can.presets, "best")),
    place("method", "Method", select(can.methods)),
    place("layers", "Layers, how many or which", input("", { placeholder: "the preset's; 8; or 3, 7" })),
    place("layer_metric", "Redundancy by", select(can.layer_metrics)),
    place("size", "Size by", select(["target_compression", "retain_ratio", "importance_threshold"])),
    place("share", "Share", input("", { inputmode: "decimal", placeholder: "the preset's" })),
    place("schedule", "Schedule", select(["", ...can.schedules], "", "the preset's")),
    place("score", "Score", select(["", ...can.scores], "", "the preset's")),
    place("calibration", "Calibration text", select(can.datasets, preferred(can.datasets, "calibration"))),
    place("samples", "Windows", input("128", { inputmode: "numeric" })),
    place("sequence_length", "Tokens in a window", input("512", { inputmode: "numeric" })),
    place("scored", "Score perplexity on", select(["", ...can.datasets], preferred(can.datasets, "evaluation"), "nothing")),
    place("limit", "At most so many windows", input("", { inputmode: "numeric", placeholder: "all" })),
    el("div", { class: "wide" }, el("h3", {}, "Plan"), planned),
    el("div", { class: "wide row" }, el("button", { class: "main" }, "Submit")));
  view.append(el("h2", {}, "New job"), job);

  const blame = (error) => {
    for (const [name, field] of Object.entries(fields)) {
      const wrong = error && places[error.field] === name;
      field.setAttribute("aria-invalid", String(Boolean(wrong)));
      document.getElementById(`${name}-error`).textContent = wrong ? error.message : "";
    }
  };
  // A plan of a model on the hub may take a while; only the answer to what is in the form now counts.
  let asked = 0;
  const check = async () => {
    const mine = ++asked;
    const stale = () => signal.aborted || mine !== asked;
    try {
      const plan = await post("v1/plans", body(fields));
      if (stale()) return;
      blame(null);
      planned.replaceChildren(summary(plan));
    } catch (error) {
      if (stale()) return;
      blame(error);
      planned.replaceChildren(el("p", { class: "error" }, `${error.field ?? ""} ${error.message}`));
    }
  };
  let timer;
  job.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(check, 300); });
  // Made once, so that a second click makes no second job; a changed form is another job.
  let attempt = crypto.randomUUID?.() ?? String(Math.random());
  job.addEventListener("input", () => { attempt = crypto.randomUUID?.() ?? String(Math.random()); });
  job.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const made = await submit(body(fields), attempt);
      location.hash = `#/jobs/${made.id}`;
    } catch (error) {
      blame(error);
      notice(error.message);
    }
  });
  await check();
}

async function submit(spec, attempt) {
  const headers = { "content-type": "application/json", "idempotency-key": attempt };
  return (await request("v1/jobs", { method: "POST", headers, body: JSON.stringify(spec) })).json();
}
