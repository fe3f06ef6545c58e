import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { label, ofQuery, search, series } from "../api";
import type { FoundTrace, SearchAnswer, SeriesAnswer } from "../api";
import { DurationChart } from "../chart/durations";
import { readBox, writeBox } from "../chart/box";
import type { Box } from "../chart/box";
import type { Cell, Dot } from "../chart/durations";
import { colourIndex } from "../colour";
import { Facets } from "../facets";
import { bytes, clock, count, duration, durationLiteral } from "../format";
import { useAnswer, useInterval, useTitle } from "../hooks";
import { useKeys } from "../keys";
import { useLive } from "../live";
import type { Live } from "../live";
import { QueryBox } from "../querybox";
import { keepRange, range, step, tick } from "../range";
import { WiderRange } from "../rangepicker";
import { change, go, href, parameter } from "../router";
import { conditions, takesMetrics, traceIdOf, withCondition, withoutCondition, withoutField } from "../traceql";
import { SPANS_DRAWN, TraceList, errorsOf, spansOf } from "../tracelist";
import { Empty, Failure, Icon, Tabs, Waiting } from "../ui";

const LIMIT = 50;
const LIMIT_MAX = 1000;
/** New rows a second while live. */
const LIVE_ROWS = 20;
/** How often chart, counts and list are asked for anew while rows arrive by themselves. */
const LIVE_MS = 10_000;
/** Columns of the heatmap. */
const COLUMNS = 120;

const EVERYTHING = "{ }";
const NOT_VALID = "The query is not valid";

/** Asks for what the rows show besides, where the query leaves the choice. */
const withFields = (query: string): string => (takesMetrics(query) ? `${query} | select(resource.service.name, status)` : query);

export default function Traces() {
  useTitle("Traces");
  const query = parameter("q") || EVERYTHING;
  const limit = Math.min(LIMIT_MAX, Math.max(1, Number(parameter("limit")) || LIMIT));
  const isLive = parameter("live") === "1";
  const chart = parameter("chart") === "traces" ? "traces" : "spans";
  const facets = parameter("facets").split(",").filter(Boolean);
  const { start, end, since } = range.value;
  const box = readBox(parameter("box"));
  const setBox = (next: Box | null) => change({ box: next && writeBox(next) }, "replace");
  const [facetsOpen, setFacetsOpen] = useState(false);
  const list = useRef<HTMLDivElement>(null);

  const answer = useAnswer(`${query} ${start} ${end} ${limit}`, (signal) => ofQuery(query, { start, end }, signal, search(withFields(query), { start, end }, limit, SPANS_DRAWN, signal)));
  const isRefused = answer.error?.status === 400;
  const again = () => (tick.value = Date.now());
  const canLive = since !== null;
  const live = useLive(isLive && canLive ? withFields(query) : null, LIVE_ROWS, SPANS_DRAWN, again);
  useInterval(again, isLive && canLive ? LIVE_MS : null);
  const stream = useHeld(query, isLive, answer.data?.traces, live.rows);
  const traces = stream.traces;

  const run = (next: string) => {
    const text = next.trim();
    const id = traceIdOf(text);
    if (id) return go(`trace/${id}`);
    if (text === query) tick.value = Date.now();
    change({ q: text === EVERYTHING || text === "" ? null : text, limit: null, box: null });
  };
  const focusRow = (by: number) => {
    const rows = [...(list.current?.querySelectorAll<HTMLElement>("a.trace") ?? [])];
    const at = rows.indexOf(document.activeElement as HTMLElement);
    rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  };
  useKeys("Traces", [
    { keys: "j / ArrowDown", does: "next trace", run: () => focusRow(1) },
    { keys: "k / ArrowUp", does: "trace before", run: () => focusRow(-1) },
    { keys: "l", does: "live on or off", run: () => change({ live: isLive ? null : 1 }, "replace") },
    { keys: "p", does: "pause, or go on", run: () => isLive && stream.pause() },
    { keys: "f", does: "filters", run: () => { setFacetsOpen(true); document.querySelector<HTMLElement>(".facets button")?.focus(); } },
  ]);
  const show = (at: Box) => {
    let next = withoutField(query, "duration");
    next = withCondition(withCondition(next, `duration > ${durationLiteral(at.low)}`), `duration < ${durationLiteral(at.high)}`);
    change({ q: next, box: null, live: null, since: null, from: at.from.toFixed(3), to: at.to.toFixed(3) });
  };
  const explain = (at: Box) =>
    go("explain", { ...keepRange(), q: query === EVERYTHING ? null : query, from: start.toFixed(0), to: end.toFixed(0), since: null, box: writeBox(at) });

  return (
    <div class={facetsOpen ? "traces facets-open" : "traces"}>
      <div class="controls">
        <QueryBox query={query} run={run} invalid={isRefused} />
        <button type="button" class="facets-toggle" aria-expanded={facetsOpen} onClick={() => setFacetsOpen(!facetsOpen)}>
          <Icon name="filter" /> Filters
        </button>
        <button type="button" class="live" aria-pressed={isLive} disabled={!canLive} title={canLive ? "Show traces as they arrive (l)" : "Live needs a range that ends now"} onClick={() => change({ live: isLive ? null : 1 }, "replace")}>
          <i class={isLive ? (live.state === "open" ? "lamp" : "lamp warn") : "lamp off"} />
          <span>Live</span>
        </button>
        {isLive && (
          <button type="button" onClick={stream.pause} title="Rows stand still, and go on where they stopped (p)">
            <Icon name={stream.pausedAt === null ? "pause" : "play"} />
            <span>{stream.pausedAt === null ? "Pause" : "Go on"}</span>
          </button>
        )}
      </div>
      <Pills query={query} run={run} />
      {answer.error && <Failure error={answer.error} what={isRefused ? NOT_VALID : "The search failed"} retry={answer.reload} />}
      <Facets query={query} isRefused={isRefused || answer.loading} more={facets} setMore={(fields) => change({ facets: fields.join(",") || null }, "replace")} run={run} />
      <section class="found" aria-label="Traces">
        <div class="chart-head">
          <Tabs label="Chart" tabs={[["spans", "Matching spans"], ["traces", "Listed traces"]] as const} chosen={chart} choose={(tab) => change({ chart: tab === "spans" ? null : tab }, "replace")} />
          <small class="note">{box ? `${duration(box.low)} – ${duration(box.high)}, ${clock(box.from * 1000)} – ${clock(box.to * 1000)}` : "Draw a box to choose time and duration."}</small>
          {box && (
            <span class="box-actions">
              <button type="button" class="primary" onClick={() => show(box)}>Show these</button>
              <button type="button" onClick={() => explain(box)}>Explain the difference</button>
              <button type="button" class="quiet" onClick={() => setBox(null)} aria-label="Remove the box"><Icon name="close" /></button>
            </span>
          )}
        </div>
        {chart === "spans" ? (
          <Heatmap query={query} box={box} onBox={setBox} />
        ) : (
          <DurationChart from={start} to={end} cells={NO_CELLS} dots={dots(traces)} box={box} onBox={setBox} onDot={(id) => go(`trace/${id}`)} label={`Durations of ${traces.length} traces over time`} />
        )}
        <Summary answer={answer.data} shown={traces.length} took={answer.took} loading={answer.loading} limit={limit}>
          {isLive && <LiveState live={live} stream={stream} />}
        </Summary>
        {live.error && !isRefused && <Failure error={live.error} what="Not live" retry={live.retry} />}
        <div class={answer.loading && !isLive ? "results stale" : "results"} ref={list} onPointerEnter={() => stream.hover(true)} onPointerLeave={() => stream.hover(false)}>
          {!answer.data && answer.loading && <Waiting rows={10} />}
          {answer.data && traces.length === 0 && <NothingFound query={query} isLive={isLive} />}
          {traces.length > 0 && <TraceList traces={traces} fresh={stream.fresh} />}
          {traces.length >= limit && limit < LIMIT_MAX && (
            <button type="button" class="more" onClick={() => change({ limit: Math.min(LIMIT_MAX, limit * 2) }, "replace")}>
              Show more
            </button>
          )}
        </div>
      </section>
    </div>
  );
}

const NO_CELLS: Cell[] = [];
const NO_DOTS: Dot[] = [];

function Pills({ query, run }: { query: string; run: (query: string) => void }) {
  const parts = conditions(query);
  if (parts.length === 0) return null;
  return (
    <ul class="pills" aria-label="Conditions">
      {parts.map((part) => (
        <li key={part}>
          <code class="clip">{part}</code>
          <button type="button" class="quiet" onClick={() => run(withoutCondition(query, part))} aria-label={`Remove ${part}`}>
            <Icon name="close" />
          </button>
        </li>
      ))}
      {parts.length > 1 && (
        <li class="clear">
          <button type="button" class="quiet" onClick={() => run(EVERYTHING)}>
            clear
          </button>
        </li>
      )}
    </ul>
  );
}

/** The buckets of `histogram_over_time` as cells: each holds what took up to its bound, and more than half of it. */
export function cellsOf(answer: SeriesAnswer | null, stepSeconds: number): Cell[] {
  const cells: Cell[] = [];
  for (const one of answer?.series ?? []) {
    const high = Number(label(one, "__bucket")) * 1e9;
    if (!(high > 0)) continue;
    for (const sample of one.samples ?? []) {
      if (!sample.value) continue;
      const to = Number(sample.timestampMs) / 1000;
      cells.push({ from: to - stepSeconds, to, low: high / 2, high, count: sample.value });
    }
  }
  return cells;
}

interface HeatmapProps {
  query: string;
  box: Box | null;
  onBox: (box: Box | null) => void;
  /** Told whether the query is refused; without it, the page shows a refusal itself. */
  onRefused?: (isRefused: boolean) => void;
}

export function Heatmap({ query, box, onBox, onRefused }: HeatmapProps) {
  const { start, end } = range.value;
  const seconds = step({ start, end }, COLUMNS);
  const asked = takesMetrics(query) ? `${query} | histogram_over_time(duration)` : null;
  const answer = useAnswer(asked === null ? null : `${asked} ${start} ${end}`, (signal) => ofQuery(query, { start, end }, signal, series(asked ?? "", { start, end }, seconds, signal)));
  const isRefused = answer.error?.status === 400;
  useEffect(() => onRefused?.(isRefused), [isRefused]);
  const cells = useMemo(() => cellsOf(answer.data, seconds), [answer.data]);
  if (asked === null) return <p class="note chart-note">A query with a pipeline has no heatmap; the other tab shows its traces.</p>;
  if (answer.error && (onRefused || !isRefused)) return <Failure error={answer.error} what={isRefused ? NOT_VALID : "No heatmap"} retry={answer.reload} />;
  return (
    <>
      <DurationChart from={start} to={end} cells={cells} dots={NO_DOTS} box={box} onBox={onBox} onDot={() => undefined} label="Durations of matching spans over time" />
      {end - start > 24 * 3600 && <p class="note">The chart and the counts beside it are of the last 24 hours of this range.</p>}
    </>
  );
}

function dots(traces: FoundTrace[]): Dot[] {
  return traces.map((trace) => {
    const service = trace.rootServiceName ?? "";
    return {
      id: trace.traceID,
      at: Number(BigInt(trace.startTimeUnixNano ?? 0) / 1000n) / 1e6,
      nanos: (trace.durationMs ?? 0) * 1e6,
      colour: `--s${colourIndex(service)}`,
      error: errorsOf(trace) > 0,
      title: `${service} ${trace.rootTraceName ?? ""} ${duration((trace.durationMs ?? 0) * 1e6)}`,
    };
  });
}

interface SummaryProps {
  answer: SearchAnswer | null;
  shown: number;
  took: number;
  loading: boolean;
  limit: number;
  children: ComponentChildren;
}

function Summary({ answer, shown, took, loading, limit, children }: SummaryProps) {
  const found = answer?.traces?.length ?? 0;
  const inspected = Number(answer?.metrics?.inspectedBytes ?? 0);
  const inspectedTraces = Number(answer?.metrics?.inspectedTraces ?? 0);
  return (
    <p class="summary">
      {/* Only this is read out when it changes, not what each look took. */}
      <span role="status">
        {answer ? (
          <>
            <b>{count(shown)}</b> {shown === 1 ? "trace" : "traces"}, newest first
            {found >= limit ? ", there may be more" : ", these are all"}
          </>
        ) : loading ? (
          "Searching …"
        ) : (
          ""
        )}
      </span>
      {answer && children}
      {answer && (
        <small>
          {inspectedTraces > 0 && `${count(inspectedTraces)} traces looked at, `}
          {inspected > 0 && `${bytes(inspected)} read, `}
          {Math.round(took)} ms
        </small>
      )}
    </p>
  );
}

function LiveState({ live, stream }: { live: Live; stream: Stream }) {
  const left = live.more + live.skippedSpans;
  return (
    <span class="live-state">
      {live.state === "waiting" && <small class="warn-text">connecting …</small>}
      {stream.pausedAt !== null && <small>paused since {clock(stream.pausedAt)}</small>}
      {stream.waiting > 0 && (
        <button type="button" class="primary" onClick={stream.release} title="Rows stand still while paused, and while the pointer is over them">
          {count(stream.waiting)} new
        </button>
      )}
      {left > 0 && (
        <small title="They are stored, and a search finds them">
          {live.more > 0 && `${count(live.more)} more came than are shown`}
          {live.more > 0 && live.skippedSpans > 0 && ", "}
          {live.skippedSpans > 0 && `${count(live.skippedSpans)} spans came too fast to be looked at`}
        </small>
      )}
    </span>
  );
}

interface Stream {
  traces: FoundTrace[];
  /** Those that came while live, for a moment of colour. */
  fresh: Set<string>;
  /** New ones that wait to be shown. */
  waiting: number;
  /** Unix milliseconds; null while rows move. */
  pausedAt: number | null;
  pause: () => void;
  release: () => void;
  hover: (over: boolean) => void;
}

/**
 * What was found and what arrived as one list, newest first. While paused, or while the pointer is over the rows (a row
 * must not move away from under it), the list stands still, and what came since is counted.
 */
function useHeld(query: string, isLive: boolean, found: FoundTrace[] | undefined, arrived: FoundTrace[]): Stream {
  const [pausedAt, setPausedAt] = useState<number | null>(null);
  const [isOver, setOver] = useState(false);
  const seen = useRef<{ query: string; ids: Set<string>; list: FoundTrace[] }>({ query: "", ids: new Set(), list: [] });
  useEffect(() => setPausedAt(null), [query, isLive]);
  const all = useMemo(() => (isLive ? joined(found ?? [], arrived) : (found ?? [])), [isLive, found, arrived]);
  const before = seen.current;
  const isSame = before.query === query && isLive;
  const held = isSame && (pausedAt !== null || isOver) && before.list.length > 0;
  const news = isSame ? all.filter((one) => !before.ids.has(one.traceID)).map((one) => one.traceID) : [];
  const shown = held ? before.list : all;
  const fresh = useMemo(() => new Set(held ? [] : news), [shown]);
  const keep = (list: FoundTrace[]) => (seen.current = { query, ids: new Set(list.map((one) => one.traceID)), list });
  useEffect(() => {
    if (!held && found) keep(all);
  }, [held, all]);
  return {
    traces: shown,
    fresh,
    waiting: held ? news.length : 0,
    pausedAt,
    pause: () => setPausedAt(pausedAt === null ? Date.now() : null),
    release: () => {
      keep(all);
      setPausedAt(null);
      setOver(false);
    },
    hover: (over) => isLive && setOver(over),
  };
}

function joined(found: FoundTrace[], arrived: FoundTrace[]): FoundTrace[] {
  const byId = new Map(found.map((one) => [one.traceID, one]));
  // A search that is younger knows more of a trace than the row that announced it.
  for (const one of arrived) if (spansOf(one) > spansOf(byId.get(one.traceID))) byId.set(one.traceID, one);
  const start = (one: FoundTrace) => BigInt(one.startTimeUnixNano ?? 0);
  return [...byId.values()].sort((a, b) => (start(a) < start(b) ? 1 : start(a) > start(b) ? -1 : 0)).slice(0, LIMIT_MAX);
}

function NothingFound({ query, isLive }: { query: string; isLive: boolean }) {
  return (
    <Empty title="No trace matches">
      <p>
        {query === EVERYTHING ? "Nothing was received in this time." : "Nothing in this time matches the query."} {isLive && "What arrives appears here. "}
        <WiderRange />
      </p>
      {query === EVERYTHING && (
        <p>
          <a href={href("home")}>How to send the first trace</a>
        </p>
      )}
    </Empty>
  );
}

