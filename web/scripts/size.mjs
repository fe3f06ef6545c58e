// What the browser loads, compressed as the server sends it: at first, and in all. Fails beyond the limits.
import { readFileSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";

const FIRST_MAX = 120 * 1024;
const ALL_MAX = 200 * 1024;
const dist = new URL("../dist/", import.meta.url);
const html = readFileSync(new URL("index.html", dist), "utf8");
const size = (name) => gzipSync(readFileSync(new URL(name, dist)), { level: 9 }).length;
const names = ["index.html", "icon.svg", ...readdirSync(new URL("assets/", dist)).map((name) => `assets/${name}`)];
const sizes = new Map(names.map((name) => [name, size(name)]));
const first = names.filter((name) => name === "index.html" || html.includes(`./${name}`)).reduce((sum, name) => sum + sizes.get(name), 0);
const all = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
for (const [name, bytes] of sizes) console.log(`${String(bytes).padStart(8)} ${name}`);
console.log(`${String(first).padStart(8)} at first, at most ${FIRST_MAX}\n${String(all).padStart(8)} in all, at most ${ALL_MAX}`);
if (first > FIRST_MAX || all > ALL_MAX) {
  console.error("The UI has become too large.");
  process.exit(1);
}
