import { useEffect, useRef, useState } from "preact/hooks";
import { loginWanted } from "./api";
import { fileProblem, openFile } from "./files";
import { Help } from "./help";
import { helpShown, useKeys } from "./keys";
import { lazy } from "./lazy";
import { Login } from "./login";
import { followLinks, go, href, place } from "./router";
import { keepRange } from "./range";
import { logout, look, session } from "./session";
import { Icon } from "./ui";
import { RangePicker } from "./rangepicker";
import { traceIdOf } from "./traceql";
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

export function App() {
  const { page } = place.value;
  const [dropping, setDropping] = useState(false);
  const chooser = useRef<HTMLInputElement>(null);

  useKeys("Everywhere", [
    { keys: "?", does: "this sheet", run: () => (helpShown.value = !helpShown.value) },
    { keys: "/", does: "to the search field", run: () => document.querySelector<HTMLElement>("[data-search]")?.focus() },
    { keys: "g o", does: "open a file with traces", run: () => chooser.current?.click() },
    ...PAGES.map(([name, title, key]) => ({ keys: `g ${key}`, does: title, run: () => go(name, keepRange()) })),
  ]);

  useEffect(() => {
    document.addEventListener("click", followLinks);
    void look();
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
      void openFile(file);
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
        {RANGED.has(page) && !loginWanted.value && <RangePicker />}
        <input
          ref={chooser}
          type="file"
          hidden
          accept=".json,.jsonl,.ndjson,.html,application/json"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (file) void openFile(file);
          }}
        />
        <button type="button" class="quiet" onClick={() => chooser.current?.click()} aria-label="Open a file with traces" title="Open a file with traces (g o), or drop it anywhere">
          <Icon name="upload" />
        </button>
        <Who />
        <button type="button" class="quiet help" onClick={() => (helpShown.value = true)} aria-label="Keyboard">
          ?
        </button>
      </header>
      <main id="main" tabIndex={-1} class={`page-${page}`}>
        {fileProblem.value && (
          <div class="failure" role="alert">
            <Icon name="error" />
            <div>
              <strong>The file cannot be opened</strong>
              <pre>{fileProblem.value}</pre>
            </div>
            <button type="button" onClick={() => (fileProblem.value = "")}>Close</button>
          </div>
        )}
        {loginWanted.value ? <Login /> : View ? <View /> : <NotFound />}
      </main>
      {helpShown.value && <Help />}
      {dropping && (
        <div class="dropping">
          <div>
            <Icon name="upload" /> Drop a trace here: OTLP, Tempo or Jaeger JSON, or a page that was saved. It stays in your browser.
          </div>
        </div>
      )}
    </>
  );
}

/** Who is logged in, where that is asked. */
function Who() {
  const who = session.value;
  if (!who || who.role === "none" || (who.user === null && !who.logout)) return null;
  const leave = () => void logout().then(() => (loginWanted.value = session.value?.role === "none"));
  return (
    <span class="who">
      <span class="clip" title={who.role === "read_only" ? "May look and change nothing" : undefined}>
        {who.user ?? "logged in"}
      </span>
      {who.logout && (
        <button type="button" class="linkish" onClick={leave}>
          log out
        </button>
      )}
    </span>
  );
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
    const id = traceIdOf(text);
    if (id) go(`trace/${id}`);
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
