// Builds the page that a trace is saved in: one file with script, style and policy, and a place for the trace. The policy
// names the hashes of the two, so that nothing else can run, whatever stands in the trace.
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const web = new URL("../", import.meta.url);
const path = (name) => fileURLToPath(new URL(name, web));
const NAME = "virtual-saved-page?url";
/** As `src/trace/read.ts` looks for it. */
const PLACE = '<script type="application/json" id="trace">null</script>';

const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

export async function savedPage() {
  const output = await build({
    configFile: false,
    root: path("./"),
    publicDir: false,
    logLevel: "error",
    oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
    plugins: [
      {
        name: "router-of-a-saved-page",
        enforce: "pre",
        resolveId: (id, from) => (/^\.{1,2}\/router$/.test(id) && from && !from.includes("/saved/router") ? path("src/saved/router.ts") : id === NAME ? "\0none" : null),
        load: (id) => (id === "\0none" ? 'export default ""' : null),
      },
    ],
    build: {
      write: false,
      target: "es2022",
      modulePreload: false,
      cssCodeSplit: false,
      assetsInlineLimit: 0,
      reportCompressedSize: false,
      rolldownOptions: { input: path("src/saved/main.tsx"), output: { format: "iife" } },
    },
  });
  const files = [output].flat().flatMap((one) => one.output);
  const script = files.filter((file) => file.type === "chunk").map((file) => file.code).join("\n").trim();
  const style = files.filter((file) => file.fileName.endsWith(".css")).map((file) => String(file.source)).join("\n").trim();
  // Neither may end the element that it stands in.
  if (/[\0\r]/.test(script + style) || /<\/script|<!--/i.test(script) || /<\/style/i.test(style)) throw new Error("the script or style of the saved page cannot stand in HTML");
  const policy = `default-src 'none'; script-src ${hash(script)}; style-src ${hash(style)}; img-src data:; base-uri 'none'; form-action 'none'`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title></title>
<style>${style}</style>
</head>
<body>
<div id="app"></div>
<noscript>This trace is drawn by the script in this file; the trace itself stands in it as OTLP JSON.</noscript>
${PLACE}
<script>${script}</script>
</body>
</html>
`;
}

/** Makes `virtual-saved-page?url` the address of that page. */
export function saved() {
  let isServed = false;
  return {
    name: "saved-page",
    enforce: "pre",
    configResolved: (config) => {
      isServed = config.command === "serve";
    },
    resolveId: (id) => (id === NAME ? `\0${NAME}` : null),
    async load(id) {
      if (id !== `\0${NAME}`) return null;
      const page = await savedPage();
      if (isServed) return `export default "data:text/html;base64,${Buffer.from(page).toString("base64")}"`;
      const file = this.emitFile({ type: "asset", name: "saved.html", source: page });
      return `export default import.meta.ROLLUP_FILE_URL_${file}`;
    },
  };
}
