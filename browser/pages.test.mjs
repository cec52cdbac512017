// The pages in a real browser, over a real service with real jobs. `cargo xtask browser` runs this.
// Screenshots go to the folder in SCREENSHOTS, for people to look at.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import axe from "axe-core";
import puppeteer from "puppeteer-core";
import { job, programs, start, submit } from "./service.mjs";

const SCREENS = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844, isMobile: true, hasTouch: true, deviceScaleFactor: 2 } };
const SCHEMES = ["light", "dark"];
const screenshots = process.env.SCREENSHOTS ?? "screenshots";

let browser, open, running;

before(async () => {
  mkdirSync(screenshots, { recursive: true });
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, headless: true, args: ["--no-sandbox", "--no-proxy-server"] });
  open = await start({ open: true });
  for (let number = 0; number < 12; number++) await submit(open.address, programs.nextToken, { wait: 30, label: `next token, prompt ${number}` });
  await submit(open.address, programs.nextToken, { wait: 30 });
  assert.equal((await submit(open.address, programs.fails, { wait: 30, label: "an index that is out of range" })).state, "failed");
  const cancelled = await submit(open.address, programs.long, { label: "a mistake" });
  await fetch(`${open.address}/v1/jobs/${cancelled.id}`, { method: "DELETE" });
  running = [];
  for (let number = 0; number < 30; number++) running.push(await submit(open.address, programs.long, { label: `long generation ${number}` }));
});

after(async () => {
  await browser?.close();
  open?.stop();
});

/** A page whose every complaint is kept: errors, refused resources, exceptions. */
async function visit(address, { screen = "desktop", scheme = "light", javascript = true } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const complaints = [];
  page.on("console", message => { if (["error", "warn"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`); });
  page.on("pageerror", error => complaints.push(`exception: ${error.message}`));
  page.on("requestfailed", request => complaints.push(`failed: ${request.url()}`));
  await page.setViewport(SCREENS[screen]);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setJavaScriptEnabled(javascript);
  await page.goto(address, { waitUntil: "networkidle0" });
  return { page, complaints, close: () => context.close() };
}

/** Everything that axe finds: all its rules, contrast among them. */
async function violations(page) {
  await page.evaluate(axe.source);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations", "incomplete"] }));
  assert.ok(found.passes.length > 10, "axe looked at next to nothing");
  // What axe cannot decide counts as well, where it is contrast.
  const undecided = found.incomplete.filter(rule => rule.id === "color-contrast");
  return [...found.violations, ...undecided].map(rule => `${rule.id}: ${rule.help}: ${rule.nodes.map(node => node.html).join(" ")}`);
}

/** Nothing is wider than the screen; only what scrolls by itself may be. */
async function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

const shot = (page, name) => page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });

for (const screen of Object.keys(SCREENS)) {
  for (const scheme of SCHEMES) {
    test(`the status page on a ${screen}, ${scheme}`, async () => {
      const { page, complaints, close } = await visit(open.address, { screen, scheme });
      await page.waitForSelector("#jobs progress");
      await page.waitForFunction(() => document.querySelectorAll("#jobs tr").length > 30);
      const text = await page.$eval("body", body => body.innerText);
      for (const shown of ["serving", "bundled (default)", "hot", "cold", "long generation 0", "succeeded", "failed", "an index that is out of range", "ahead"]) assert.ok(text.includes(shown), `${shown} is not shown:\n${text}`);
      // Nothing that one may want to do is out of sight.
      const hidden = await page.$$eval(".scroll", all => all.map(one => one.scrollWidth - one.clientWidth));
      assert.deepEqual(hidden, [0, 0], "a table is wider than the screen");
      assert.ok(Number(await page.$eval("#waiting", figure => figure.textContent)) > 0);
      assert.ok(await page.$$eval("#history rect", bars => bars.some(bar => bar.getBoundingClientRect().height > 10)), "the history shows nothing");
      await shot(page, `status-${screen}-${scheme}`);
      assert.deepEqual(await violations(page), []);
      assert.equal(await overflow(page), 0);
      assert.deepEqual(complaints, []);
      await close();
    });

    test(`the interface on a ${screen}, ${scheme}`, async () => {
      const { page, complaints, close } = await visit(`${open.address}/docs`, { screen, scheme });
      await page.waitForSelector("#routes details");
      await page.$$eval("#routes details", all => all.slice(0, 2).forEach(one => { one.open = true; }));
      await page.evaluate(() => document.querySelector("#routes details form").requestSubmit());
      await page.waitForFunction(() => document.querySelector("#routes details pre").textContent.startsWith("202"));
      await shot(page, `docs-${screen}-${scheme}`);
      await page.$$eval("#routes details", all => all.forEach(one => { one.open = true; }));
      assert.deepEqual(await violations(page), []);
      assert.equal(await overflow(page), 0);
      assert.deepEqual(complaints, []);
      await close();
    });
  }
}

/** What has the focus, and whether one sees that it has. */
const focused = page => page.evaluate(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return {
    name: element.tagName.toLowerCase(),
    label: element.getAttribute("aria-label") ?? element.textContent.trim().slice(0, 60),
    id: element.id,
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0 && box.height > 0,
  };
});

test("the status page by keyboard alone: every stop is seen, and a running job is cancelled", async () => {
  const { page, complaints, close } = await visit(open.address);
  await page.waitForSelector("#jobs button");
  const stops = [];
  let stop;
  do {
    await page.keyboard.press("Tab");
    stop = await focused(page);
    stops.push(stop);
    assert.ok(stop.seen, `the focus is not seen on ${JSON.stringify(stop)}`);
    assert.ok(stops.length < 40, `no way to the jobs: ${JSON.stringify(stops)}`);
  } while (!stop.label.startsWith("Cancel"));
  assert.deepEqual(stops.map(({ label }) => label).slice(0, -1), ["Interface", "Models", "Your jobs"]);
  // The table is made anew every two seconds: the focus stays where it was.
  await new Promise(resolve => setTimeout(resolve, 2500));
  assert.equal((await focused(page)).label, stop.label);
  const name = stop.label.slice("Cancel ".length);
  const chosen = running.find(({ label }) => label === name) ?? { id: name };
  assert.ok(["queued", "running"].includes((await job(open.address, chosen.id)).state));
  await page.keyboard.press("Enter");
  await page.waitForFunction(label => !document.querySelector(`[aria-label="${label}"]`), {}, stop.label);
  while ((await job(open.address, chosen.id)).state === "running") await new Promise(resolve => setTimeout(resolve, 20));
  assert.equal((await job(open.address, chosen.id)).state, "cancelled");
  // Where the button was, the focus goes on: not to the page's beginning.
  const next = await focused(page);
  assert.ok(next.name !== "body", "the focus is lost with the button");
  assert.deepEqual(complaints, []);
  await close();
});

test("the interface by keyboard alone: a route is opened, and a program explained", async () => {
  const { page, complaints, close } = await visit(`${open.address}/docs`);
  await page.waitForSelector("#routes details");
  let stop;
  for (let number = 0; number < 40 && !stop?.label.includes("/v1/explain"); number++) {
    await page.keyboard.press("Tab");
    stop = await focused(page);
    assert.ok(stop.seen, `the focus is not seen on ${JSON.stringify(stop)}`);
  }
  await page.keyboard.press("Enter");
  do {
    await page.keyboard.press("Tab");
    stop = await focused(page);
    assert.ok(stop.seen, `the focus is not seen on ${JSON.stringify(stop)}`);
  } while (stop.label !== "Send");
  await page.keyboard.press("Enter");
  const answer = await page.waitForFunction(() => [...document.querySelectorAll("#routes pre")].map(answer => answer.textContent).find(text => text.startsWith("200")));
  assert.ok((await answer.jsonValue()).includes("milliseconds"));
  assert.deepEqual(complaints, []);
  await close();
});

for (const screen of Object.keys(SCREENS)) {
  test(`a key is asked for where one is needed, on a ${screen}`, async () => {
    const keyed = await start({ open: false });
    try {
      const key = keyed.key("ada");
      await submit(keyed.address, programs.nextToken, { wait: 30, key, label: "ada's own" });
      const { page, complaints, close } = await visit(keyed.address, { screen });
      await page.waitForSelector("#entry:not([hidden])");
      assert.ok(await page.$eval("#all", all => all.hidden));
      await shot(page, `key-${screen}`);
      assert.deepEqual(await violations(page), []);
      assert.deepEqual(complaints, [], "before any key is given");
      const enter = async text => {
        await page.$eval("#key", input => { input.value = ""; });
        await page.focus("#key");
        await page.keyboard.type(text);
        await page.keyboard.press("Enter");
      };
      await enter("pellucid_not_a_key");
      await page.waitForFunction(() => document.getElementById("wrong").textContent.includes("not valid"));
      assert.deepEqual(await violations(page), []);
      // The browser itself notes the 401s that a wrong key is answered with; nothing else is wrong.
      assert.deepEqual(complaints.filter(complaint => !complaint.includes("401")), []);
      await enter(key);
      await page.waitForSelector("#all:not([hidden])");
      await page.waitForFunction(() => document.getElementById("jobs").innerText.includes("ada's own"));
      assert.equal(await overflow(page), 0);
      await close();
    } finally {
      keyed.stop();
    }
  });
}

test("a key for metrics alone sees how the service is", async () => {
  const keyed = await start({ open: false });
  try {
    const key = keyed.key("prometheus", "admin");
    const { page, complaints, close } = await visit(keyed.address);
    await page.waitForSelector("#entry:not([hidden])");
    await page.focus("#key");
    await page.keyboard.type(key);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#all:not([hidden])");
    assert.ok((await page.$eval("#state", state => state.textContent)).startsWith("serving"));
    assert.ok((await page.$eval("#models", models => models.innerText)).includes("bundled"));
    assert.ok((await page.$eval("#none", none => none.textContent)).includes("submits no jobs"));
    assert.deepEqual(complaints, []);
    await close();
  } finally {
    keyed.stop();
  }
});

test("without JavaScript the pages say what to do instead", async () => {
  for (const [path, instead] of [["/", "pellucid status"], ["/docs", "openapi.json"]]) {
    const { page, close } = await visit(open.address + path, { javascript: false });
    const text = await page.$eval("body", body => body.innerText);
    assert.ok(text.includes(instead), text);
    assert.equal(await overflow(page), 0);
    await close();
  }
});
