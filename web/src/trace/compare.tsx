// Two traces side by side: what each operation cost here and there. The other is given by its id, or is the median of
// the traces with the same root, or stands in a file.
import { useMemo, useRef, useState } from "preact/hooks";
import { search, trace as askTrace } from "../api";
import { tracesOf } from "../files";
import { count, duration } from "../format";
import { useAnswer } from "../hooks";
import { change, href, parameter } from "../router";
import { quote } from "../traceql";
import { Failure, Icon, ServiceDot, Waiting } from "../ui";
import { buildTrace } from "./model";
import type { Node, Trace } from "./model";
import { byTrace, readTrace } from "./read";

/** Traces among which the median is looked for, within these seconds around this one. */
const CANDIDATES = 101;
const AROUND_SECONDS = 6 * 3600;
/** Operations listed. */
const LINES_MAX = 300;

export interface Line {
  service: string;
  name: string;
  /** Here and there: spans, failed ones, self time. */
  here: Cost;
  there: Cost;
}

interface Cost {
  spans: number;
  failed: number;
  self: number;
}

/** Operations of both, those whose self time differs most first. */
export function compare(here: Trace, there: Trace): Line[] {
  const lines = new Map<string, Line>();
  const add = (trace: Trace, side: "here" | "there") => {
    for (const node of trace.nodes) {
      if (!node.span) continue;
      const key = `${node.service}\u0000${node.name}`;
      let line = lines.get(key);
      if (!line) lines.set(key, (line = { service: node.service, name: node.name, here: { spans: 0, failed: 0, self: 0 }, there: { spans: 0, failed: 0, self: 0 } }));
      line[side].spans += 1;
      line[side].failed += node.error ? 1 : 0;
      line[side].self += node.self;
    }
  };
  add(here, "here");
  add(there, "there");
  return [...lines.values()].sort((a, b) => Math.abs(b.here.self - b.there.self) - Math.abs(a.here.self - a.there.self));
}

async function median(root: Node, trace: Trace, signal: AbortSignal): Promise<string> {
  const at = Number(trace.startNano / 1_000_000_000n);
  const q = `{ rootServiceName = ${quote(root.service)} && rootName = ${quote(root.span?.name ?? "")} && nestedSetParent < 0 }`;
  const answer = await search(q, { start: at - AROUND_SECONDS, end: Math.min(at + AROUND_SECONDS, Date.now() / 1000 + 1) }, CANDIDATES, 1, signal);
  const others = (answer.traces ?? []).filter((one) => one.traceID.padStart(32, "0") !== trace.id.padStart(32, "0")).sort((a, b) => (a.durationMs ?? 0) - (b.durationMs ?? 0));
  return others[Math.floor(others.length / 2)]?.traceID ?? "";
}

export function Compare({ trace, root }: { trace: Trace; root: Node }) {
  const wanted = parameter("with").trim().toLowerCase();
  const [file, setFile] = useState<File | null>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const other = useAnswer(`with ${trace.id} ${wanted} ${file?.name ?? ""} ${file?.lastModified ?? ""}`, async (signal) => {
    if (file) {
      const [first] = await tracesOf(file);
      return first ? buildTrace(first[0], first[1]) : null;
    }
    const id = wanted || (await median(root, trace, signal));
    if (id === "") return null;
    const spans = byTrace(readTrace(await askTrace(id, signal)))[0]?.[1];
    return spans ? buildTrace(id, spans) : null;
  });
  const lines = useMemo(() => (other.data ? compare(trace, other.data) : []), [trace, other.data]);
  const most = lines.reduce((max, line) => Math.max(max, line.here.self, line.there.self), 1);
  const submit = (event: Event) => {
    event.preventDefault();
    const input = (event.target as HTMLFormElement).elements.namedItem("with") as HTMLInputElement;
    setFile(null);
    change({ with: input.value.trim() || null });
  };
  return (
    <div>
      <form class="flame-info" onSubmit={submit}>
        <label>
          With trace <input key={wanted} name="with" defaultValue={wanted} placeholder="the median of this route" size={34} spellcheck={false} />
        </label>
        <button type="submit">Compare</button>
        <input ref={chooser} type="file" hidden accept=".json,.jsonl,.html,application/json" aria-label="File to compare with" onChange={(event) => { setFile(event.currentTarget.files?.[0] ?? null); event.currentTarget.value = ""; }} />
        <button type="button" onClick={() => chooser.current?.click()}>
          <Icon name="upload" /> {file ? file.name : "with a file"}
        </button>
        {other.data && (
          <span>
            here <b>{duration(trace.duration)}</b>, {count(trace.spans)} spans; {file ? "there" : <a href={href(`trace/${other.data.id}`)}>there</a>} <b>{duration(other.data.duration)}</b>, {count(other.data.spans)} spans
          </span>
        )}
      </form>
      {other.error && <Failure error={other.error} what="No comparison" retry={other.reload} />}
      {other.loading && !other.data && <Waiting />}
      {!other.loading && !other.error && !other.data && <p class="note chart-note">{wanted ? "There is no such trace." : "No other trace within six hours has this root."}</p>}
      {other.data && (
        <div class="sheet" tabIndex={0}>
          <table class="data">
            <thead>
              <tr>
                <th scope="col"><span>Operation</span></th>
                <th scope="col" class="number"><span>Spans here : there</span></th>
                <th scope="col"><span>Self time, here above, there below</span></th>
                <th scope="col" class="number"><span>Difference</span></th>
              </tr>
            </thead>
            <tbody>
              {lines.slice(0, LINES_MAX).map(({ service, name, here, there }) => (
                <tr key={`${service} ${name}`}>
                  <td>
                    <ServiceDot service={service} /> {service} · {name}
                  </td>
                  <td class="number">
                    {count(here.spans)} : {count(there.spans)}
                    {here.failed + there.failed > 0 && <b class="bad-text"> failed {count(here.failed)} : {count(there.failed)}</b>}
                  </td>
                  <td class="pair-cell">
                    <div class="pair" aria-hidden="true">
                      <i class="in" style={{ width: `${(here.self / most) * 100}%` }} />
                      <i class="out" style={{ width: `${(there.self / most) * 100}%` }} />
                    </div>
                    <small>
                      {duration(here.self)} : {duration(there.self)}
                    </small>
                  </td>
                  <td class="number">
                    {here.self > there.self ? "+" : ""}
                    {duration(here.self - there.self)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}
