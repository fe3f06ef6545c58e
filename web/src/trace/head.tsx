// What stands above a trace: what it is, where to take it, and what is odd about it.
import { useState } from "preact/hooks";
import type { ApiError } from "../api";
import { download, opened } from "../files";
import { ago, count, duration, moment, visible } from "../format";
import { change, go, isSaved } from "../router";
import { CopyButton, Failure, Icon, Menu, ServiceDot } from "../ui";
import { toJaeger } from "./jaeger";
import type { Node, Trace } from "./model";
import { toOtlp } from "./otlp";
import type { SpanData } from "./read";
import { savedPage } from "./saved";

/** Traces of a file that can be chosen from. */
const LISTED_MAX = 500;

interface HeadProps {
  trace: Trace;
  root: Node;
  spans: SpanData[];
  file: string;
  reload: (() => void) | undefined;
}

export function Head({ trace, root, spans, file, reload }: HeadProps) {
  const started = Number(trace.startNano / 1_000_000n);
  return (
    <div class="trace-head">
      <h1>
        <ServiceDot service={root.service} />
        <span class="clip">
          <span class="muted">{root.service || "root never arrived"}</span> {visible(root.name)}
        </span>
      </h1>
      <div class="facts">
        <span>
          <b>{duration(trace.duration)}</b>
        </span>
        <span>
          <b>{count(trace.spans)}</b> {trace.spans === 1 ? "span" : "spans"}
        </span>
        <span>
          <b>{trace.services.length}</b> {trace.services.length === 1 ? "service" : "services"}
        </span>
        {trace.errors > 0 && (
          <span class="bad-text">
            <b class="bad-text">{count(trace.errors)}</b> failed
          </span>
        )}
        <span>{trace.depth} deep</span>
        <time dateTime={new Date(started).toISOString()} title={ago(started)}>
          {moment(started)}
        </time>
        <span>
          <code>{file ? `${file}: ` : ""}{trace.id}</code>
          <CopyButton text={trace.id} label="Copy the trace id" />
        </span>
      </div>
      <div class="head-actions">
        {file !== "" && <FileTraces chosen={trace.id} file={file} />}
        {reload && (
          <button type="button" class="quiet" onClick={reload} aria-label="Load again" title="Load again: late spans may have come">
            <Icon name="reload" />
          </button>
        )}
        <Downloads trace={trace} root={root} spans={spans} />
      </div>
    </div>
  );
}

/** The other traces of the file. */
function FileTraces({ chosen, file }: { chosen: string; file: string }) {
  const traces = opened.value?.traces;
  if (!traces || traces.size < 2) return null;
  return (
    <select aria-label="Trace of the file" value={chosen} onChange={(event) => go(`trace/${event.currentTarget.value}`, { file })}>
      {[...traces].slice(0, LISTED_MAX).map(([id, spans]) => (
        <option key={id} value={id || "none"}>
          {id.slice(0, 12) || "without id"}: {count(spans.length)} spans
        </option>
      ))}
      {traces.size > LISTED_MAX && <option disabled>and {count(traces.size - LISTED_MAX)} more</option>}
    </select>
  );
}

function Downloads({ trace, root, spans }: { trace: Trace; root: Node; spans: SpanData[] }) {
  const [problem, setProblem] = useState<ApiError | null>(null);
  const name = trace.id || "trace";
  const page = () =>
    savedPage(trace.id, `${root.service} ${root.name}`, spans).then(
      (text) => {
        setProblem(null);
        download(`${name}.html`, text, "text/html");
      },
      (error: ApiError) => setProblem(error),
    );
  return (
    <>
      <Menu icon="download" title="Download">
        {!isSaved && (
          <button type="button" role="menuitem" onClick={() => void page()}>
            HTML page <small>opens anywhere, also offline</small>
          </button>
        )}
        <button type="button" role="menuitem" onClick={() => download(`${name}.json`, JSON.stringify(toOtlp(spans)), "application/json")}>
          OTLP JSON <small>for any OTLP/HTTP endpoint</small>
        </button>
        <button type="button" role="menuitem" onClick={() => download(`${name}.jaeger.json`, JSON.stringify(toJaeger(trace.id, spans)), "application/json")}>
          Jaeger JSON <small>for Jaeger's upload</small>
        </button>
      </Menu>
      {problem && <Failure error={problem} what="Not saved" />}
    </>
  );
}

/** What is odd about this trace, in plain words. */
export function Marks({ trace, clocks, partial }: { trace: Trace; clocks: string; partial: string }) {
  const marks: { text: string; key: string; action?: { text: string; run: () => void } }[] = [];
  if (partial) marks.push({ key: "partial", text: `Incomplete: ${partial}` });
  if (trace.orphans > 0) marks.push({ key: "orphans", text: `${count(trace.orphans)} ${trace.orphans === 1 ? "span's parent" : "spans' parents"} never arrived` });
  if (trace.early > 0) {
    const text = `${count(trace.early)} ${trace.early === 1 ? "span starts" : "spans start"} before ${trace.early === 1 ? "its parent" : "their parents"}, by up to ${duration(trace.earlyMax)}: clocks differ`;
    marks.push({ key: "early", text, action: { text: clocks === "corrected" ? "Show as sent" : "Correct", run: () => change({ clocks: clocks === "corrected" ? null : "corrected" }, "replace") } });
  }
  if (trace.rings > 0) marks.push({ key: "rings", text: `${trace.rings === 1 ? "A ring" : `${trace.rings} rings`} of parents` });
  if (trace.negative > 0) marks.push({ key: "negative", text: `${count(trace.negative)} ${trace.negative === 1 ? "span ends" : "spans end"} before it starts` });
  if (trace.twins > 0) marks.push({ key: "twins", text: `${count(trace.twins)} spans share their ids` });
  if (marks.length === 0) return null;
  return (
    <div class="marks">
      {marks.map(({ key, text, action }) => (
        <span key={key} class="mark">
          <Icon name="error" />
          {text}
          {action && (
            <button type="button" onClick={action.run}>
              {action.text}
            </button>
          )}
        </span>
      ))}
    </div>
  );
}

export function Legend({ trace, hidden, setHidden }: { trace: Trace; hidden: ReadonlySet<string>; setHidden: (hidden: ReadonlySet<string>) => void }) {
  const LISTED = 24;
  const total = Math.max(1, trace.services.reduce((sum, one) => sum + one.self, 0));
  const flip = (service: string) => {
    const next = new Set(hidden);
    if (!next.delete(service)) next.add(service);
    setHidden(next);
  };
  return (
    <div class="legend" role="group" aria-label="Services">
      {trace.services.slice(0, LISTED).map(({ service, spans, errors, self }) => (
        <button key={service} type="button" aria-pressed={!hidden.has(service)} onClick={() => flip(service)} title={`${service}: ${count(spans)} spans, self time ${duration(self)} (${Math.round((self / total) * 100)}%)`}>
          <ServiceDot service={service} />
          {visible(service) || "?"}
          <small>{count(spans)}</small>
          {errors > 0 && <small class="bad-text">{count(errors)} failed</small>}
        </button>
      ))}
      {trace.services.length > LISTED && <small>and {trace.services.length - LISTED} more</small>}
    </div>
  );
}
