// The Python package's displays in a real browser. `cargo xtask python displays` writes the pages (`displays.py`) and runs this.
// The folder in DISPLAYS has the pages; screenshots go to the folder in SCREENSHOTS, for people to look at.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import axe from "axe-core";
import puppeteer from "puppeteer-core";

const SCREENS = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844, isMobile: true, hasTouch: true, deviceScaleFactor: 2 } };
const SCHEMES = ["light", "dark"];
/** What axe does not decide of a text's contrast: it is scrolled out of sight, one letter long, or in an image. Cells are looked at below. */
const UNDECIDED = ["outsideViewport", "elmPartiallyObscured", "shortTextContent", "imgNode"];
const pages = process.env.DISPLAYS;
const screenshots = process.env.SCREENSHOTS ?? "screenshots";
const expected = JSON.parse(readFileSync(join(pages, "displays.json"), "utf-8"));

let browser;

before(async () => {
  mkdirSync(screenshots, { recursive: true });
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, headless: true, args: ["--no-sandbox", "--no-proxy-server"] });
});

after(() => browser?.close());

/** A page whose every complaint is kept, and every request to anywhere. */
async function visit(name, screen, scheme) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const complaints = [];
  page.on("console", message => { if (["error", "warn"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`); });
  page.on("pageerror", error => complaints.push(`exception: ${error.message}`));
  page.on("request", request => { if (!/^(file|data|about):/.test(request.url())) complaints.push(`asks for ${request.url()}`); });
  await page.setViewport(SCREENS[screen]);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pathToFileURL(join(pages, `${name}.html`)).href, { waitUntil: "load" });
  return { page, complaints, close: () => context.close() };
}

/** Everything that axe finds in a document, frames too: all its rules, and contrast that it cannot decide. */
async function violations(page) {
  const found = [];
  for (const frame of page.frames()) {
    await frame.evaluate(axe.source);
    const result = await frame.evaluate(() => axe.run(document, { resultTypes: ["violations", "incomplete"], iframes: false }));
    assert.ok(result.passes.length > 5, "axe looked at next to nothing");
    // What axe cannot decide counts as well, where it is contrast.
    const undecided = result.incomplete.filter(rule => rule.id === "color-contrast").map(rule => ({
      ...rule, nodes: rule.nodes.filter(node => !UNDECIDED.includes(node.any[0]?.data?.messageKey)),
    })).filter(rule => rule.nodes.length > 0);
    const told = node => `${node.html} ${node.any[0]?.data?.messageKey ?? ""} ${node.any[0]?.data?.contrastRatio ?? ""}`;
    found.push(...[...result.violations, ...undecided].map(rule => `${rule.id}: ${rule.help}: ${rule.nodes.slice(0, 3).map(told).join("; ")}`));
  }
  return found;
}

const overflow = frame => frame.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const shot = (page, name) => page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });

/** The least contrast of a cell's number with its colour, as the browser draws them. */
const leastContrast = page => page.evaluate(() => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const luminance = colour => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...context.getImageData(0, 0, 1, 1).data].map(part => { part /= 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrasts = [...document.querySelectorAll("td[data-tip]")].map(cell => {
    const style = getComputedStyle(cell);
    const [low, high] = [luminance(style.color), luminance(style.backgroundColor)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
  return Math.min(...contrasts, 21);
});

/** How far what is under the pointer sticks out of what it is seen in, in pixels. */
const cutOff = cell => cell.evaluate(cell => {
  const style = getComputedStyle(cell, "::after");
  const fixed = style.position === "fixed";
  const origin = fixed ? { left: 0, top: 0 } : cell.getBoundingClientRect();
  const seen = fixed ? { left: 0, right: innerWidth } : cell.closest(".scroll").getBoundingClientRect();
  const [across] = style.translate === "none" ? ["0"] : style.translate.split(" ");
  const width = parseFloat(style.width);
  const left = origin.left + parseFloat(style.left) + (across.endsWith("%") ? width * parseFloat(across) / 100 : parseFloat(across));
  return Math.round(Math.max(seen.left - left, left + width - seen.right, 0));
});

/** Points at what has this under the pointer, and says whether one sees it. */
async function pointed(page, tip) {
  const cells = await page.$$("[data-tip]");
  for (const cell of cells) {
    const text = await cell.evaluate(cell => cell.dataset.tip);
    if (!text.includes(tip)) continue;
    assert.equal(await cell.evaluate(cell => getComputedStyle(cell, "::after").display), "none");
    await cell.hover();
    const shown = await cell.evaluate(cell => { const style = getComputedStyle(cell, "::after"); return { display: style.display, content: style.content }; });
    assert.equal(shown.display, "block", "what is under the pointer is not shown");
    assert.equal(await cutOff(cell), 0, "what is under the pointer is cut off");
    assert.ok(shown.content.includes(tip.replaceAll('"', '\\"')), shown.content);
    // By keyboard, too.
    await page.mouse.move(0, 0);
    await cell.focus();
    assert.ok(await cell.evaluate(cell => cell.matches(":focus")));
    return;
  }
  for (const point of await page.$$("circle")) {
    if (!(await point.$eval("title", title => title.textContent)).includes(tip)) continue;
    await point.hover();
    assert.notEqual(await point.evaluate(point => getComputedStyle(point).fill), "rgba(0, 0, 0, 0)", "one does not see which point is meant");
    return;
  }
  for (const area of await page.$$("rect")) {
    if (!(await area.$eval("title", title => title.textContent)).includes(tip)) continue;
    await area.hover();
    assert.notEqual(await area.evaluate(area => getComputedStyle(area).filter), "none", "one does not see which part is meant");
    return;
  }
  assert.fail(`nothing has “${tip}” under the pointer`);
}

for (const screen of Object.keys(SCREENS)) {
  for (const scheme of SCHEMES) {
    for (const [name, { title, tip }] of Object.entries(expected)) {
      test(`${name} on a ${screen}, ${scheme}`, async () => {
        const { page, complaints, close } = await visit(name, screen, scheme);
        assert.equal(await page.$eval("h1", heading => heading.textContent), title);
        await shot(page, `${name}-${screen}-${scheme}`);
        assert.deepEqual(await violations(page), []);
        assert.ok(await leastContrast(page) >= 4.45, `a number is hard to read: ${await leastContrast(page)}`);
        await pointed(page, tip);
        await shot(page, `${name}-${screen}-${scheme}-pointed`);
        assert.equal(await overflow(page.mainFrame()), 0);
        assert.deepEqual(complaints, []);
        await close();
      });
    }

    test(`a notebook on a ${screen}, ${scheme}`, async () => {
      const { page, complaints, close } = await visit("notebook", screen, scheme);
      await page.waitForFunction(count => window.length === count, {}, Object.keys(expected).length);
      for (const frame of page.frames()) {
        await frame.waitForSelector("h1");
        // What is wide scrolls by itself; what is high is scrolled to.
        assert.equal(await overflow(frame), 0);
      }
      const dark = scheme === "dark";
      const light = await page.$eval(".pellucid", box => getComputedStyle(box).backgroundColor);
      assert.equal(light, dark ? "rgb(26, 29, 37)" : "rgb(251, 251, 253)");
      await page.click(".pellucid summary");
      assert.equal(await page.$eval(".pellucid details", tree => tree.open), false);
      await page.click(".pellucid summary");
      const text = await page.$eval(".pellucid", box => box.innerText);
      for (const shown of ["GPT2LMHeadModel", "transformer", ".output", "[prompts, length, 2048]"]) assert.ok(text.includes(shown), `${shown} is not shown:\n${text}`);
      await shot(page, `notebook-${screen}-${scheme}`);
      assert.deepEqual(await violations(page), []);
      assert.deepEqual(complaints, []);
      await close();
    });
  }
}

test("texts of a steering are seen on a phone, as text", async () => {
  const { page, close } = await visit("steering", "phone", "light");
  const said = await page.$$eval("td.said", cells => cells.map(cell => ({ text: cell.innerText, high: cell.getBoundingClientRect().height })));
  assert.equal(said[1].text, "Mary <b>and</b> John & a rather long text that has to wrap on a phone");
  assert.ok(said.every(({ high }) => high > 0));
  await close();
});
