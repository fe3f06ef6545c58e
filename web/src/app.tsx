import { useEffect, useState } from "preact/hooks";
import { readFile, byTrace } from "./trace/read";
import { opened } from "./trace/file";
import { groups, helpShown, useKeys } from "./keys";
import { lazy } from "./lazy";
import { followLinks, go, href, place } from "./router";
import { keepRange } from "./range";
import { Icon, Modal } from "./ui";
import { RangePicker } from "./rangepicker";
import Home from "./pages/home";
import Traces from "./pages/traces";

const PAGES = [
  ["home", "Home", "h"],
  ["traces", "Traces", "t"],
  ["map", "Map", "m"],
  ["explain", "Explain", "x"],
  ["cluster", "Cluster", "c"],
  ["health", "Health", "s"],
] as const;

const VIEWS = {
  home: Home,
  traces: Traces,
  trace: lazy(() => import("./pages/trace")),
  map: lazy(() => import("./pages/map")),
  explain: lazy(() => import("./pages/explain")),
  cluster: lazy(() => import("./pages/cluster")),
  health: lazy(() => import("./pages/health")),
} as const;

/** Pages that look at a time range. */
const RANGED = new Set(["home", "traces", "map", "explain"]);
/** A file that is larger than this is not read into the browser. */
const FILE_BYTES_MAX = 256 * 1024 * 1024;

export function App() {
  const { page } = place.value;
  const [dropping, setDropping] = useState(false);
  const [problem, setProblem] = useState("");

  useKeys("Everywhere", [
    { keys: "?", does: "this sheet", run: () => (helpShown.value = !helpShown.value) },
    { keys: "/", does: "to the search field", run: () => document.querySelector<HTMLElement>("[data-search]")?.focus() },
    ...PAGES.map(([name, title, key]) => ({ keys: `g ${key}`, does: title, run: () => go(name, keepRange()) })),
  ]);

  useEffect(() => {
    document.addEventListener("click", followLinks);
    const over = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setDropping(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setDropping(false);
    };
    const drop = (event: DragEvent) => {
      const file = event.dataTransfer?.files[0];
      if (!file) return;
      event.preventDefault();
      setDropping(false);
      openFile(file).catch((error: Error) => setProblem(`${file.name}: ${error.message}`));
    };
    addEventListener("dragover", over);
    addEventListener("dragleave", leave);
    addEventListener("drop", drop);
    return () => {
      document.removeEventListener("click", followLinks);
      removeEventListener("dragover", over);
      removeEventListener("dragleave", leave);
      removeEventListener("drop", drop);
    };
  }, []);

  const View = VIEWS[page as keyof typeof VIEWS];
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>
        To the content
      </a>
      <header class="top">
        <a class="brand" href={href("home", keepRange())} aria-label="Spanreel, home">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M4 8h16M10 16h10M14 24h14" />
          </svg>
          <b>Spanreel</b>
        </a>
        <nav aria-label="Pages">
          {PAGES.map(([name, title]) => (
            <a key={name} href={href(name, keepRange())} aria-current={name === page || (name === "traces" && page === "trace") ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <OpenTrace />
        {RANGED.has(page) && <RangePicker />}
        <button type="button" class="quiet help" onClick={() => (helpShown.value = true)} aria-label="Keyboard">
          ?
        </button>
      </header>
      <main id="main" tabIndex={-1} class={`page-${page}`}>
        {problem && (
          <div class="failure" role="alert">
            <Icon name="error" />
            <div>
              <strong>The file cannot be opened</strong>
              <pre>{problem}</pre>
            </div>
            <button type="button" onClick={() => setProblem("")}>Close</button>
          </div>
        )}
        {View ? <View /> : <NotFound />}
      </main>
      {helpShown.value && <Help />}
      {dropping && (
        <div class="dropping">
          <div>
            <Icon name="upload" /> Drop a trace here: OTLP, Tempo or Jaeger JSON. It stays in your browser.
          </div>
        </div>
      )}
    </>
  );
}

async function openFile(file: File): Promise<void> {
  if (file.size > FILE_BYTES_MAX) throw new Error("larger than 256 MiB");
  const traces = byTrace(readFile(await file.text()));
  const first = traces[0];
  if (!first) throw new Error("no span is in it");
  opened.value = { name: file.name, traces: new Map(traces) };
  go(`trace/${first[0] || "none"}`, { file: file.name });
}

/** To a trace by its id, or to a search for a text. */
function OpenTrace() {
  const submit = (event: Event) => {
    event.preventDefault();
    const input = (event.target as HTMLFormElement).elements.namedItem("id") as HTMLInputElement;
    const text = input.value.trim();
    if (text === "") return;
    input.value = "";
    input.blur();
    const id = /^(?:0x)?([0-9a-f-]{1,36})$/i.exec(text)?.[1]?.replace(/-/g, "");
    if (id) go(`trace/${id.toLowerCase()}`);
    else go("traces", { ...keepRange(), q: text.startsWith("{") ? text : `{ name =~ ${JSON.stringify(`(?i).*${text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}.*`)} }` });
  };
  return (
    <form class="open" role="search" onSubmit={submit}>
      <Icon name="search" />
      <input name="id" aria-label="Trace id or operation" placeholder="Trace id or operation" spellcheck={false} autocomplete="off" />
    </form>
  );
}

function NotFound() {
  return (
    <div class="empty">
      <strong>There is no such page</strong>
      <a href={href("home")}>Home</a>
    </div>
  );
}

function Help() {
  return (
    <Modal title="Keyboard" onClose={() => (helpShown.value = false)}>
      <div class="keys">
        {groups.value.map((group) => (
          <section key={group.title}>
            <h3>{group.title}</h3>
            <dl>
              {group.keys.map((key) => (
                <div key={key.keys}>
                  <dt>
                    {key.keys.split(" / ").map((one) => (
                      <kbd key={one}>{one.replace("Arrow", "").replace("Escape", "Esc")}</kbd>
                    ))}
                  </dt>
                  <dd>{key.does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Modal>
  );
}
