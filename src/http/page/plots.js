// Plots of a report, each with its numbers as a table for those who do not look at it.
import { count, el, table } from "./api.js";

const colour = { quiet: "#8a94a0", main: "#2f7ae5", mark: "#e0672b" };

const axis = (label, more = {}) => {
  const style = getComputedStyle(document.documentElement);
  const stroke = style.getPropertyValue("color");
  const grid = { stroke: "rgba(128,128,128,0.25)", width: 1 };
  return { label, stroke, grid, ticks: grid, labelSize: 24, font: "12px system-ui", labelFont: "12px system-ui", ...more };
};

const bars = (offset, width) => uPlot.paths.bars({ size: [width, 60], align: offset });

function draw(place, caption, options, data, numbers, signal) {
  const box = el("div", { role: "img", "aria-label": `${caption}. The numbers follow as a table.` });
  const figure = el("figure", {}, el("figcaption", {}, caption), box,
    el("details", {}, el("summary", {}, "Numbers"), numbers));
  place.append(figure);
  const width = () => Math.max(280, figure.clientWidth || 480);
  const plot = new uPlot({ width: width(), height: 240, cursor: { drag: { x: false, y: false } }, ...options }, data, box);
  const watcher = new ResizeObserver(() => plot.setSize({ width: width(), height: 240 }));
  watcher.observe(place);
  signal.addEventListener("abort", () => { watcher.disconnect(); plot.destroy(); });
  return { plot, figure };
}

// Whole numbers only: there is no layer 2.5.
const whole = (plot, splits) => splits.map((value) => (Number.isInteger(value) ? value : null));

function influence(place, report, signal) {
  const values = report.layers.block_influence;
  // Nothing was measured where nothing was compressed.
  if (!values.length) return;
  const redundant = new Set(report.layers.redundant);
  const layers = values.map((_, index) => index);
  const pick = (wanted) => values.map((value, index) => (redundant.has(index) === wanted ? value : null));
  const series = (label, fill) => ({ label, fill, stroke: fill, paths: bars(0, 0.7), points: { show: false } });
  draw(place, "Block influence by layer: the lower, the more redundant", {
    scales: { x: { time: false, range: [-0.6, values.length - 0.4] }, y: { range: (_, __, max) => [0, max * 1.05] } },
    axes: [axis("layer", { values: whole }), axis("1 − cosine")],
    series: [{ label: "layer" }, series("kept as it was", colour.quiet), series("redundant", colour.mark)],
  }, [layers, pick(false), pick(true)],
  table("Block influence", ["Layer", { text: "Influence", number: true }, "Redundant"],
    values.map((value, index) => [index, value.toPrecision(4), redundant.has(index) ? "yes" : "no"])), signal);
}

function parameters(place, report, signal) {
  const sums = new Map();
  for (const it of report.matrices ?? []) {
    const layer = Number(/\.layers\.(\d+)\./.exec(it.name)?.[1]);
    const sum = sums.get(layer) ?? { before: 0, after: 0 };
    sums.set(layer, { before: sum.before + it.parameters_before, after: sum.after + it.parameters_after });
  }
  if (!sums.size) return;
  const layers = [...sums.keys()].sort((a, b) => a - b);
  const places = layers.map((_, index) => index);
  const of = (side) => layers.map((layer) => sums.get(layer)[side]);
  const series = (label, fill, offset) => ({ label, fill, stroke: fill, paths: bars(offset, 0.35), points: { show: false } });
  const largest = Math.max(...of("before"));
  const short = (_, splits) => splits.map((value) => (largest >= 1e6 ? `${value / 1e6} M` : `${value / 1e3} k`));
  draw(place, "Parameters of the compressed matrices by layer", {
    scales: { x: { time: false, range: [-0.6, layers.length - 0.4] }, y: { range: (_, __, max) => [0, max * 1.05] } },
    axes: [axis("layer", { values: (_, splits) => splits.map((at) => layers[at] ?? null) }), axis("parameters", { values: short, size: 64 })],
    series: [{ label: "layer", value: (_, at) => layers[at] ?? "" }, series("before", colour.quiet, -1), series("after", colour.main, 1)],
  }, [places, of("before"), of("after")],
  table("Parameters", ["Layer", { text: "Before", number: true }, { text: "After", number: true }],
    layers.map((layer) => [layer, count(sums.get(layer).before), count(sums.get(layer).after)])), signal);
}

function singular(place, values, signal) {
  const matrices = values?.matrices?.filter((it) => it.sigma?.length) ?? [];
  if (!matrices.length) return;
  const choice = el("select", { id: "matrix" }, matrices.map((it, index) => el("option", { value: index }, it.name)));
  const box = el("div");
  place.append(el("div", {}, el("label", { for: "matrix" }, "Singular values of "), choice, box));
  let ending = new AbortController();
  const show = () => {
    ending.abort();
    ending = new AbortController();
    const it = matrices[choice.value];
    const kept = new Set(it.kept);
    const mark = it.sigma.map((sigma, index) => (kept.has(index) ? sigma : null));
    box.replaceChildren();
    draw(box, `${kept.size} of ${it.sigma.length} singular values kept`, {
      scales: { x: { time: false }, y: { distr: 3 } },
      axes: [axis("index, from the largest"), axis("σ", { size: 64 })],
      series: [{ label: "index" },
        { label: "σ", stroke: colour.quiet, width: 1, points: { show: false } },
        { label: "kept", stroke: colour.mark, paths: () => null, points: { show: true, size: 6, fill: colour.mark } }],
    }, [it.sigma.map((_, index) => index), it.sigma, mark],
    table("Singular values", ["Index", { text: "σ", number: true }, "Kept"],
      it.sigma.map((sigma, index) => [index, sigma.toPrecision(5), kept.has(index) ? "yes" : "no"])), ending.signal);
  };
  choice.addEventListener("change", show);
  signal.addEventListener("abort", () => ending.abort());
  show();
}

// Losses of the recovery, where there was one.
function losses(place, report, signal) {
  const curve = report.recovery?.curve ?? [];
  if (curve.length < 2) return;
  const steps = curve.map((point) => point.step);
  const values = curve.map((point) => point.loss);
  draw(place, "Loss during recovery", {
    scales: { x: { time: false } },
    axes: [axis("step"), axis("loss")],
    series: [{ label: "step" }, { label: "loss", stroke: colour.main, width: 2, points: { show: false } }],
  }, [steps, values],
  table("Losses", ["Step", { text: "Loss", number: true }],
    curve.map((point) => [point.step, point.loss.toPrecision(5)])), signal);
}

export function plots(place, report, values, signal) {
  influence(place, report, signal);
  parameters(place, report, signal);
  singular(place, values, signal);
  losses(place, report, signal);
}
