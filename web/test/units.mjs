// Runs every test/*.test.ts with Node's own test runner; Vite turns the TypeScript into JavaScript.
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";

// What the modules read of a page.
globalThis.document = { baseURI: "http://127.0.0.1/", querySelector: () => null, documentElement: {} };
globalThis.location = new URL("http://127.0.0.1/");
globalThis.addEventListener = () => undefined;

const here = new URL("./", import.meta.url);
for (const name of readdirSync(here).filter((name) => name.endsWith(".test.ts"))) await runnerImport(fileURLToPath(new URL(name, here)), { logLevel: "error" });
