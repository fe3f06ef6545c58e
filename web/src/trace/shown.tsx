// A trace with everything that can be looked at in it. Stored traces, opened files and saved pages are shown by this.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { count } from "../format";
import { useTitle } from "../hooks";
import { useKeys } from "../keys";
import { change, isSaved, parameter } from "../router";
import { Icon, Tabs } from "../ui";
import { Compare } from "./compare";
import { Drawer } from "./drawer";
import { Events } from "./events";
import { Flame } from "./flame";
import { Head, Legend, Marks } from "./head";
import { TraceMap } from "./map";
import { WHOLE, Minimap, bounded } from "./minimap";
import type { Zoom } from "./minimap";
import { buildTrace, matches, rows as rowsOf } from "./model";
import type { Node, Row, Segment, Trace } from "./model";
import type { SpanData } from "./read";
import { Statistics } from "./statistics";
import { Waterfall } from "./waterfall";

const TABS = [["waterfall", "Waterfall"], ["flame", "Flame graph"], ["statistics", "Statistics"], ["events", "Events"], ["map", "Map"], ["compare", "Compare"]] as const;
type Tab = (typeof TABS)[number][0];
/** A saved page has nobody to ask for another trace. */
const SHOWN_TABS = TABS.filter(([name]) => !(isSaved && name === "compare"));
/** Milliseconds after which the zoom is written into the URL. */
const SETTLE_MS = 300;

interface ShownProps {
  id: string;
  spans: SpanData[];
  /** The file that it came from; empty for a stored trace. */
  file: string;
  partial?: string;
  reload?: () => void;
}

const NO_NODES: ReadonlySet<number> = new Set();

export function Shown({ id, spans, file, partial = "", reload }: ShownProps) {
  const clocks = parameter("clocks") === "corrected" ? "corrected" : "as sent";
  const trace = useMemo(() => buildTrace(id, spans, clocks), [spans, clocks]);
  const tab = (SHOWN_TABS.find(([name]) => name === parameter("tab"))?.[0] ?? "waterfall") as Tab;
  const [closed, setClosed] = useNodes("closed", trace, (node) => node.children.length > 0);
  const [openedRepeats, setOpenedRepeats] = useNodes("repeats", trace, () => true);
  const hidden = useMemo(() => new Set(parameter("hide").split(",").filter(Boolean).map(decodeURIComponent)), [parameter("hide")]);
  const setHidden = (next: ReadonlySet<string>) => change({ hide: [...next].map(encodeURIComponent).join(",") }, "replace");
  const [zoom, setZoomNow] = useState<Zoom>(() => zoomOf(parameter("zoom")));
  const showCritical = parameter("critical") === "1";
  const find = parameter("find");
  const findField = useRef<HTMLInputElement>(null);
  const root = trace.roots.reduce((best, node) => (node.below > best.below ? node : best), trace.roots[0]!);
  useTitle(`${root.service} ${root.name}`);

  const settle = useRef(0);
  const setZoom = (next: Zoom) => {
    setZoomNow(next);
    clearTimeout(settle.current);
    settle.current = window.setTimeout(() => change({ zoom: next.from === 0 && next.to === 1 ? null : `${next.from.toPrecision(7)},${next.to.toPrecision(7)}` }, "replace"), SETTLE_MS);
  };
  useEffect(() => () => clearTimeout(settle.current), []);

  const shownRows = useMemo(() => rowsOf(trace, { closed, opened: openedRepeats }), [trace, closed, openedRepeats]);
  const critical = useMemo(() => {
    if (!showCritical) return null;
    const byNode = new Map<Node, Segment[]>();
    for (const segment of trace.critical) byNode.set(segment.node, [...(byNode.get(segment.node) ?? []), segment]);
    return byNode;
  }, [trace, showCritical]);
  const found = useMemo(() => {
    const text = find.trim().toLowerCase();
    return text === "" ? null : trace.nodes.filter((node) => matches(node, text));
  }, [trace, find]);
  const foundSet = useMemo(() => (found ? new Set(found) : null), [found]);

  // The id stands in the URL; twins share one, so the index is kept beside.
  const [chosen, setChosen] = useState<number | null>(null);
  const spanId = parameter("span");
  const selected = spanId === "" ? null : chosen !== null && idOf(trace.nodes[chosen]) === spanId ? chosen : (trace.nodes.find((node) => idOf(node) === spanId)?.index ?? null);
  const select = (index: number | null) => {
    setChosen(index);
    change({ span: index === null ? null : idOf(trace.nodes[index]) }, "replace");
  };
  /** Selects a span wherever it hides. */
  const reveal = (node: Node) => {
    const open = new Set(closed);
    for (let at = node.parent; at; at = at.parent) open.delete(at.index);
    if (open.size !== closed.size) setClosed(open);
    const group = shownRows.find((row) => row.repeats.includes(node));
    if (group) setOpenedRepeats(new Set([...openedRepeats, group.node.index]));
    else if (!shownRows.some((row) => row.node === node)) {
      const first = rowsOf(trace, { closed: open, opened: openedRepeats }).find((row) => row.repeats.includes(node));
      if (first) setOpenedRepeats(new Set([...openedRepeats, first.node.index]));
    }
    if (tab !== "waterfall") change({ tab: null }, "replace");
    select(node.index);
  };
  const toggle = (row: Row) => {
    if (row.repeats.length > 0) {
      setOpenedRepeats(new Set([...openedRepeats, row.node.index]));
      return;
    }
    const next = new Set(closed);
    if (!next.delete(row.node.index)) next.add(row.node.index);
    setClosed(next);
  };
  const step = (list: readonly Node[], by: 1 | -1) => {
    if (list.length === 0) return;
    const at = selected ?? (by === 1 ? -1 : Infinity);
    const next = by === 1 ? (list.find((node) => node.index > at) ?? list[0]) : (list.findLast((node) => node.index < at) ?? list[list.length - 1]);
    if (next) reveal(next);
  };
  const rowAt = () => shownRows.findIndex((row) => row.node.index === selected || row.repeats.some((node) => node.index === selected));
  const moveRow = (by: number) => {
    const at = rowAt();
    const next = shownRows[Math.min(shownRows.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    if (next) select(next.node.index);
  };
  const failures = useMemo(() => trace.nodes.filter((node) => node.error), [trace]);
  const pan = (share: number) => setZoom(bounded({ from: zoom.from + (zoom.to - zoom.from) * share, to: zoom.to + (zoom.to - zoom.from) * share }));
  const magnify = (factor: number) => {
    const middle = selected === null ? (zoom.from + zoom.to) / 2 : Math.min(zoom.to, Math.max(zoom.from, (trace.nodes[selected]!.start + trace.nodes[selected]!.end) / 2 / Math.max(1, trace.duration)));
    setZoom(bounded({ from: middle - (middle - zoom.from) * factor, to: middle + (zoom.to - middle) * factor }));
  };
  const page = 20;
  const level = (by: 1 | -1) => {
    const depths = shownRows.filter((row) => row.expandable && row.repeats.length === 0 && row.expanded === (by === -1)).map((row) => row.node.depth);
    if (depths.length === 0) return;
    const depth = by === -1 ? Math.max(...new Set(depths)) : Math.min(...new Set(depths));
    const next = new Set(closed);
    for (const row of shownRows) {
      if (row.node.depth !== depth || row.repeats.length > 0 || row.node.children.length === 0) continue;
      if (by === -1) next.add(row.node.index);
      else next.delete(row.node.index);
    }
    setClosed(next);
  };
  useKeys("Trace", [
    { keys: "j / ArrowDown / f", does: "next span", run: () => moveRow(1) },
    { keys: "k / ArrowUp / b", does: "span before", run: () => moveRow(-1) },
    { keys: "s / PageDown", does: "a page down", run: () => moveRow(page) },
    { keys: "w / PageUp", does: "a page up", run: () => moveRow(-page) },
    { keys: "h / ArrowLeft", does: "close, or to the parent", run: () => {
      const row = shownRows[rowAt()];
      if (!row) return;
      if (row.expandable && row.expanded) toggle(row);
      else if (row.node.parent) select(row.node.parent.index);
    } },
    { keys: "ArrowRight", does: "open, or to the first child", run: () => {
      const row = shownRows[rowAt()];
      if (!row) return;
      if (row.expandable && !row.expanded) toggle(row);
      else moveRow(1);
    } },
    { keys: "[", does: "open all", run: () => { setClosed(NO_NODES); setOpenedRepeats(new Set(trace.nodes.map((node) => node.index))); } },
    { keys: "]", does: "close all", run: () => setClosed(new Set(trace.nodes.filter((node) => node.children.length > 0).map((node) => node.index))) },
    { keys: "o", does: "open one level", run: () => level(1) },
    { keys: "p", does: "close one level", run: () => level(-1) },
    { keys: "Ctrl+b", does: "find in the trace", run: () => findField.current?.focus() },
    { keys: "e", does: "next error", run: () => step(failures, 1) },
    { keys: "E", does: "error before", run: () => step(failures, -1) },
    { keys: "c", does: "critical path", run: () => change({ critical: showCritical ? null : 1 }, "replace") },
    { keys: "a", does: "pan left", run: () => pan(-0.2) },
    { keys: "A / Shift+ArrowLeft", does: "far to the left", run: () => pan(-0.9) },
    { keys: "d", does: "pan right", run: () => pan(0.2) },
    { keys: "D / Shift+ArrowRight", does: "far to the right", run: () => pan(0.9) },
    { keys: "+ / = / Shift+ArrowUp", does: "zoom in", run: () => magnify(0.6) },
    { keys: "- / Shift+ArrowDown", does: "zoom out", run: () => magnify(1 / 0.6) },
    { keys: "0", does: "the whole trace", run: () => setZoom(WHOLE) },
    { keys: "z", does: "zoom to the span", run: () => {
      const node = selected === null ? undefined : trace.nodes[selected];
      if (!node) return;
      const margin = Math.max(1, (node.end - node.start) * 0.1);
      setZoom(bounded({ from: (node.start - margin) / Math.max(1, trace.duration), to: (node.end + margin) / Math.max(1, trace.duration) }));
    } },
    { keys: "n", does: "next match", run: () => step(found ?? [], 1) },
    { keys: "N", does: "match before", run: () => step(found ?? [], -1) },
    { keys: "Escape", does: "close the span", run: () => select(null) },
  ]);

  const node = selected === null ? undefined : trace.nodes[selected];
  const position = found && selected !== null ? found.findIndex((one) => one.index === selected) + 1 : 0;
  return (
    <div class="trace-page">
      <Head trace={trace} root={root} spans={spans} file={file} reload={reload} />
      <Marks trace={trace} clocks={clocks} partial={partial} />
      <div class="trace-tools">
        <Tabs label="View" tabs={SHOWN_TABS} chosen={tab} choose={(next) => change({ tab: next === "waterfall" ? null : next })} />
        {tab === "waterfall" && (
          <>
            <button type="button" aria-pressed={showCritical} onClick={() => change({ critical: showCritical ? null : 1 }, "replace")} title="Critical path (c)">
              Critical path
            </button>
            {failures.length > 0 && (
              <button type="button" onClick={() => step(failures, 1)} title="Next error (e)">
                <Icon name="error" /> Next of {count(failures.length)} {failures.length === 1 ? "error" : "errors"}
              </button>
            )}
            {(zoom.from > 0 || zoom.to < 1) && (
              <button type="button" onClick={() => setZoom(WHOLE)} title="The whole trace (0)">
                Whole trace
              </button>
            )}
            <div class="find" role="search">
              <input
                ref={findField}
                data-search
                value={find}
                placeholder="Find in the trace"
                aria-label="Find in the trace"
                spellcheck={false}
                onInput={(event) => change({ find: event.currentTarget.value || null }, "replace")}
                onKeyDown={(event) => {
                  if (event.key === "Enter") step(found ?? [], event.shiftKey ? -1 : 1);
                  if (event.key === "Escape") event.currentTarget.blur();
                }}
              />
              {found && (
                <small role="status">
                  {position > 0 ? `${count(position)} of ` : ""}
                  {count(found.length)}
                </small>
              )}
              {found && found.length > 0 && (
                <>
                  <button type="button" class="quiet" onClick={() => step(found, -1)} aria-label="Match before">
                    <Icon name="left" />
                  </button>
                  <button type="button" class="quiet" onClick={() => step(found, 1)} aria-label="Next match">
                    <Icon name="right" />
                  </button>
                </>
              )}
            </div>
          </>
        )}
      </div>
      {tab === "waterfall" && <Legend trace={trace} hidden={hidden} setHidden={setHidden} />}
      <div class={node && tab === "waterfall" ? "trace-body with-drawer" : "trace-body"}>
        <div class="trace-view">
          {tab === "waterfall" && (
            <>
              <Minimap trace={trace} zoom={zoom} setZoom={setZoom} />
              <Waterfall trace={trace} rows={shownRows} selected={selected} select={select} toggle={toggle} zoom={zoom} setZoom={setZoom} critical={critical} found={foundSet} hidden={hidden} />
            </>
          )}
          {tab === "flame" && <Flame trace={trace} select={reveal} />}
          {tab === "statistics" && <Statistics trace={trace} />}
          {tab === "map" && <TraceMap trace={trace} select={reveal} />}
          {tab === "compare" && !isSaved && <Compare trace={trace} root={root} />}
          {tab === "events" && <Events trace={trace} select={reveal} />}
        </div>
        {node && tab === "waterfall" && <Drawer key={node.index} trace={trace} node={node} select={reveal} close={() => select(null)} />}
      </div>
    </div>
  );
}

/** Nodes that the address names one by one; of more it says nothing, but for all. */
const NAMED_MAX = 60;
const ALL = "all";

/** Some nodes of the trace, kept in the address under `name`. `isAny` are those that could be among them. */
function useNodes(name: string, trace: Trace, isAny: (node: Node) => boolean): [ReadonlySet<number>, (next: ReadonlySet<number>) => void] {
  const named = (): ReadonlySet<number> => {
    const text = parameter(name);
    if (text === "") return NO_NODES;
    const ids = new Set(text.split(","));
    return new Set(trace.nodes.filter((node) => isAny(node) && (text === ALL || ids.has(idOf(node)))).map((node) => node.index));
  };
  const [nodes, setNodes] = useState(named);
  const shown = useRef(trace);
  useEffect(() => {
    if (shown.current !== trace) setNodes(named());
    shown.current = trace;
  }, [trace]);
  const set = (next: ReadonlySet<number>) => {
    setNodes(next);
    const isAll = next.size > 0 && trace.nodes.every((node) => !isAny(node) || next.has(node.index));
    const text = isAll ? ALL : next.size <= NAMED_MAX ? [...next].map((index) => idOf(trace.nodes[index])).join(",") : "";
    change({ [name]: text }, "replace");
  };
  return [nodes, set];
}

function zoomOf(text: string): Zoom {
  const [from, to] = text.split(",").map(Number);
  return from !== undefined && to !== undefined && from >= 0 && to <= 1 && to > from ? { from, to } : WHOLE;
}

const idOf = (node: Node | undefined): string => (node ? (node.span?.spanId ?? node.missingId) : "");
