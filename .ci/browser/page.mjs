// The page in a real browser: submit a job, watch it end, see the plots, download a file, and use a key.
//
//   node page.mjs GRASPD SCREENSHOTS     GRASPD is the program; CHROMIUM the browser (default: /usr/bin/chromium)
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const [graspd, pictures] = process.argv.slice(2).map((path) => resolve(path));
const fixtures = resolve(dirname(fileURLToPath(import.meta.url)), "../../tests/fixtures");
const data = mkdtempSync(join(tmpdir(), "graspd-page-"));
mkdirSync(pictures, { recursive: true });

async function serve() {
  const server = spawn(graspd, ["serve", "--listen", "127.0.0.1:0", "--log", "json", "--rate-limit", "0",
    "--data-dir", data, "--models-dir", fixtures, "--datasets-dir", join(fixtures, "text"), "--hf-hub-offline"],
  { stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH } });
  const lines = createInterface({ input: server.stderr });
  const address = await new Promise((found) => lines.on("line", (line) => {
    const said = line.startsWith("{") ? JSON.parse(line) : {};
    if (said.address) found(said.address);
  }));
  return { server, url: `http://${address}/` };
}

async function submit(page) {
  await page.goto(`${url}#/new`);
  await page.getByLabel("Model", { exact: true }).fill("file:tiny-llama");
  await page.getByText("chosen by the scores").waitFor();
  await page.getByLabel(/^Preset/).selectOption("paper");
  await page.getByLabel("Size by").selectOption("retain_ratio");
  await page.getByLabel("Layers, how many or which").fill("2, 99");
  await page.getByText("there is no layer 99").waitFor();
  await page.getByLabel("Share").fill("7");
  await page.locator("#share[aria-invalid=true]").waitFor();
  await page.getByLabel("Share").fill("0.3");
  await page.getByLabel("Layers, how many or which").fill("2, 5");
  await page.getByLabel("Calibration text").selectOption("file:calibration");
  await page.getByLabel("Windows", { exact: true }).fill("16");
  await page.getByLabel("Tokens in a window").fill("128");
  await page.getByLabel("Score perplexity on").selectOption("file:evaluation");
  await page.getByLabel("At most so many windows").fill("2");
  await page.getByText("q_proj 19").waitFor();
  await page.screenshot({ path: join(pictures, "form.png"), fullPage: true });
  await page.getByRole("button", { name: "Submit" }).click();
  await page.waitForURL(/#\/jobs\/[0-9a-f-]{36}$/);
}

async function watch(page) {
  await page.locator(".status.running").waitFor({ timeout: 60_000 });
  await page.locator(".status.succeeded").waitFor({ timeout: 120_000 });
  await page.locator("figure canvas").nth(2).waitFor();
  assert.equal(await page.locator("figure").count(), 3);
  await page.getByLabel("Singular values of").selectOption({ index: 8 });
  await page.getByText("singular values kept").waitFor();
  await page.locator("pre", { hasText: "worker process ends" }).waitFor();
  await page.getByText("perplexity, file:evaluation").waitFor();
}

async function download(page) {
  const waiting = page.waitForEvent("download");
  await page.getByRole("link", { name: "model.safetensors", exact: true }).click();
  const file = await (await waiting).path();
  const sum = createHash("sha256").update(readFileSync(file)).digest("hex");
  const row = page.getByRole("row").filter({ hasText: "model.safetensors" }).first();
  assert.ok((await row.innerText()).includes(sum), "the file is the one that is listed");
  assert.match(await row.innerText(), /curl -C - -o 'model.safetensors' 'http:/);
}

async function list(page) {
  await page.getByRole("navigation").getByRole("link", { name: "Jobs" }).click();
  await page.getByRole("cell", { name: "file:tiny-llama" }).waitFor();
  await page.screenshot({ path: join(pictures, "jobs.png"), fullPage: true });
}

// Nothing sticks out: the page is as wide as the screen.
async function onPhone(page) {
  await page.waitForFunction(() => document.documentElement.scrollWidth <= innerWidth);
}

async function withKey(page) {
  const key = execFileSync(graspd, ["keys", "create", "--data-dir", data], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  await page.goto(url);
  await page.reload();
  await page.getByText("This service wants a key").waitFor();
  await page.getByLabel("Key").fill(key);
  await page.keyboard.press("Enter");
  await page.getByRole("cell", { name: "file:tiny-llama" }).waitFor();
  await page.getByRole("link", { name: /^[0-9a-f]{8}-/ }).click();
  await page.locator("figure canvas").nth(2).waitFor();
  const waiting = page.waitForEvent("download");
  await page.getByRole("button", { name: "config.json", exact: true }).click();
  assert.ok(JSON.parse(readFileSync(await (await waiting).path(), "utf8")).model_type);
}

async function keyboard(page) {
  await page.goto(url);
  await page.reload();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  for (const control of await page.locator("input, select").all()) {
    assert.ok(await control.evaluate((it) => it.labels.length || it.getAttribute("aria-label")), "every control has a label");
  }
}

const { server, url } = await serve();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
let failed = false;
try {
  const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1200, height: 900 } });
  const page = await context.newPage();
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(String(error)));
  // What is refused on purpose, a wrong share or a missing key, is logged by the browser too.
  page.on("console", (message) => message.type() === "error" && !/status of 4(01|22)/.test(message.text()) && trouble.push(message.text()));
  page.on("request", (it) => /^(data|blob):/.test(it.url()) || it.url().startsWith(url) || trouble.push(`asks ${it.url()}`));
  await keyboard(page);
  await submit(page);
  await watch(page);
  await page.screenshot({ path: join(pictures, "job-light.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.reload();
  await page.locator("figure canvas").nth(2).waitFor();
  await page.screenshot({ path: join(pictures, "job-dark.png"), fullPage: true });
  await page.setViewportSize({ width: 390, height: 800 });
  await onPhone(page);
  await page.screenshot({ path: join(pictures, "job-narrow.png"), fullPage: true });
  await page.goto(`${url}#/new`);
  await page.getByText("chosen by the scores").waitFor();
  await onPhone(page);
  await page.screenshot({ path: join(pictures, "form-narrow.png"), fullPage: true });
  await page.goBack();
  await page.setViewportSize({ width: 1200, height: 900 });
  await page.locator("figure canvas").nth(2).waitFor();
  await download(page);
  await list(page);
  await page.setViewportSize({ width: 390, height: 800 });
  await page.screenshot({ path: join(pictures, "jobs-narrow.png") });
  await withKey(page);
  assert.deepEqual(trouble, []);
  console.log(`the page works; pictures are in ${pictures}`);
} catch (error) {
  failed = true;
  console.error(error);
  for (const page of browser.contexts().flatMap((it) => it.pages())) {
    await page.screenshot({ path: join(pictures, "failed.png"), fullPage: true }).catch(() => {});
  }
} finally {
  await browser.close();
  server.kill("SIGTERM");
  await new Promise((ended) => server.on("exit", ended));
  rmSync(data, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
