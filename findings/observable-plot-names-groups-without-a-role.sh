#!/usr/bin/env bash
# @observablehq/plot 0.6.17: the SVG of a plot names its groups (`<g aria-label="dot">`) and gives them no role. ARIA
# allows no name for what has none, and axe-core counts each as a serious fault. `ariaLabel: "…"` names the whole, and
# gives that no role either, so that a screen reader need not say it.
#
# Output seen:
#   the plot: aria-label A chart, role null
#   groups with a name: 5, with a role: 0
#   axe-core 4.12.1: aria-prohibited-attr (serious)
#
# Exits non-zero if that changes. Needs Node 20 and npm.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent @observablehq/plot@0.6.17 d3@7.9.2 jsdom@26.1.0 axe-core@4.12.1

cat >program.mjs <<'PROGRAM'
import * as Plot from "@observablehq/plot";
import axe from "axe-core";
import { JSDOM } from "jsdom";

const { window } = new JSDOM("<!doctype html><html lang='en'><title>A page</title><main></main></html>", { runScripts: "outside-only" });
const { document } = window;
const plot = Plot.plot({ document, ariaLabel: "A chart", marks: [Plot.dot([[1, 2], [2, 3]])] });
document.querySelector("main").append(plot);
console.log(`the plot: aria-label ${plot.getAttribute("aria-label")}, role ${plot.getAttribute("role")}`);
const named = [...plot.querySelectorAll("g[aria-label]")];
console.log(`groups with a name: ${named.length}, with a role: ${named.filter((group) => group.hasAttribute("role")).length}`);
window.eval(axe.source);
const found = await window.axe.run(document, { runOnly: ["aria-prohibited-attr"] });
const said = found.violations.map((rule) => `${rule.id} (${rule.impact})`).join(", ");
console.log(`axe-core ${axe.version}: ${said || "nothing"}`);
process.exit(plot.getAttribute("role") === null && named.length > 0 && said === "aria-prohibited-attr (serious)" ? 0 : 1);
PROGRAM
node program.mjs
