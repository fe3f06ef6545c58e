// Every page in a real browser, against a real Spanreel that real OTLP requests have filled. In this order: the first file
// begins with an empty store and fills it.
//
//   SPANREEL_BIN=target/release/spanreel node test/browser.mjs [--shots DIRECTORY]
//
// SPANREEL_STORE_SPANS: how many spans the store is filled with that `scale.mjs` queries (200,000).
import "./browser/home.mjs";
import "./browser/traces.mjs";
import "./browser/trace.mjs";
import "./browser/files.mjs";
import "./browser/agents.mjs";
import "./browser/pages.mjs";
import "./browser/cluster.mjs";
import "./browser/keyboard.mjs";
import "./browser/access.mjs";
import "./browser/scale.mjs";
