import { defineConfig } from "vite";
// @ts-expect-error: plain JavaScript
import { saved } from "./scripts/saved.mjs";

declare const process: { env: Record<string, string | undefined> };

/** Where `npm run dev` finds a running Spanreel. */
const backend = process.env["SPANREEL"] ?? "http://127.0.0.1:3200";

export default defineConfig(({ command }) => ({
  // Relative, so that any path behind an Ingress works; the server writes the document's base.
  base: command === "build" ? "./" : "/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { output: { assetFileNames: "assets/[name]-[hash][extname]" } },
  },
  plugins: [
    saved(),
    {
      name: "base-in-development",
      apply: "serve",
      transformIndexHtml: (html) => html.replace('<base href="./"', '<base href="/"'),
    },
  ],
  server: { proxy: Object.fromEntries(["/api", "/ui/api", "/metrics"].map((path) => [path, backend])) },
}));
