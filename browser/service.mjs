// A service on the bundled model, with real jobs: done, failed, running, waiting.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const pellucid = process.env.PELLUCID ?? "pellucid";
// The tests' own settings alone.
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PELLUCID_")));

// One model in memory, one that nobody has asked for yet, one that is not there.
const models = `
[[model]]
id = "bundled"
pinned = true
default = true
[[model]]
id = "laboratory/another"
source = "bundled"
[[model]]
id = "laboratory/missing"
source = "/nowhere/at/all"
`;

/** Starts a service; gives its address, a way to make keys, and a way to end it. */
export async function start({ open }) {
  const folder = mkdtempSync(join(tmpdir(), "pellucid-browser-"));
  const config = join(folder, "pellucid.toml");
  writeFileSync(config, models);
  const where = ["--config", config, "--data", join(folder, "data")];
  const child = spawn(pellucid, ["serve", "--listen", "127.0.0.1:0", ...where, ...(open ? ["--open"] : [])], { env: environment, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", text => { log += text; });
  const address = await new Promise((resolve, reject) => {
    createInterface(child.stdout).once("line", line => resolve(line.replace("listening on ", "").trim()));
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`the service did not start: ${log}`)));
  });
  while ((await fetch(`${address}/readyz`)).status !== 200) await new Promise(resolve => setTimeout(resolve, 50));
  const key = (account, scope = "submit") => execFileSync(pellucid, ["keys", "create", ...where, "--account", account, "--scope", scope], { env: environment, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  const stop = () => {
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  return { address, key, stop };
}

const trace = (invoke, body) => ({ pellucid: 1, body: [{ op: "trace", ...invoke, body }] });

export const programs = {
  nextToken: trace({ invokes: [{ prompt: "The Eiffel Tower is in the city of" }] }, [
    { op: "get", name: "logits", hook: "logits" },
    { op: "getitem", name: "last", input: "logits", index: [":", -1] },
    { op: "topk", name: "top", input: "last", k: 3 },
    { op: "save", name: "tokens", value: "top.1" },
  ]),
  fails: trace({ invokes: [{ prompt: "Mary has" }] }, [
    { op: "get", name: "h", hook: "layers.2.output" },
    { op: "literal", name: "far", dtype: "i64", shape: [1], elements: [99999] },
    { op: "getitem", name: "one", input: "h", index: [0, 0, { tensor: "far" }] },
    { op: "save", name: "x", value: "one" },
  ]),
  long: trace({ invokes: [{ prompts: Array(400).fill("When Mary and John went") }], generate: { max_new_tokens: 100, stop_tokens: [] } }, [
    { op: "generated", name: "g" },
    { op: "save", name: "made", value: "g" },
  ]),
};

/** Submits a program; gives the job. */
export async function submit(address, program, { label, wait, key } = {}) {
  const headers = { "Content-Type": "application/json" };
  if (wait) headers.Prefer = `wait=${wait}`;
  if (key) headers.Authorization = `Bearer ${key}`;
  const query = label ? `?label=${encodeURIComponent(label)}` : "";
  const answer = await fetch(`${address}/v1/jobs${query}`, { method: "POST", headers, body: JSON.stringify(program) });
  if (![200, 202].includes(answer.status)) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}

/** A job, as it is now. */
export async function job(address, id) {
  return (await fetch(`${address}/v1/jobs/${id}`)).json();
}
