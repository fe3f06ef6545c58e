// The script of a page that was saved with a trace.
import { render } from "preact";
import { moment } from "../format";
import { Help } from "../help";
import { helpShown, useKeys } from "../keys";
import { readTrace } from "../trace/read";
import type { SpanData } from "../trace/read";
import type { Saved } from "../trace/saved";
import { Shown } from "../trace/shown";
import { Empty } from "../ui";
import "../styles/base.css";
import "../styles/trace.css";
import "./saved.css";

function read(): { saved: Saved; spans: SpanData[] } | string {
  try {
    const saved = JSON.parse(document.getElementById("trace")?.textContent ?? "null") as Saved | null;
    return saved === null ? "There is no trace in it." : { saved, spans: readTrace(saved.otlp) };
  } catch (problem) {
    return (problem as Error).message;
  }
}

const content = read();

function Page() {
  useKeys("Everywhere", [
    { keys: "?", does: "this sheet", run: () => (helpShown.value = !helpShown.value) },
    { keys: "/", does: "to the search field", run: () => document.querySelector<HTMLElement>("[data-search]")?.focus() },
  ]);
  if (typeof content === "string") {
    return (
      <Empty title="This page cannot be shown">
        <p>{content}</p>
      </Empty>
    );
  }
  const { saved, spans } = content;
  return (
    <>
      <main id="main" class="page-trace">
        <Shown id={saved.id} spans={spans} file="" />
        <p class="note saved-note">
          Saved from Spanreel{saved.from && ` at ${saved.from}`} on {moment(saved.at)}. Nothing on this page leaves it. <kbd>?</kbd> shows the keys.
        </p>
      </main>
      {helpShown.value && <Help />}
    </>
  );
}

const mount = document.getElementById("app");
if (mount) render(<Page />, mount);
