// Spans as bars over time. Only the rows in sight exist, so that their number does not matter.
import type { TargetedPointerEvent } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { colour } from "../colour";
import { count, duration } from "../format";
import { useSize } from "../hooks";
import { memo } from "../memo";
import { Icon } from "../ui";
import type { Zoom } from "./minimap";
import { bounded } from "./minimap";
import type { Node, Row, Segment, Trace } from "./model";

export const ROW_PIXELS = 25;
/** Rows drawn above and below what is in sight. */
const MARGIN_ROWS = 20;
const INDENT_PIXELS = 13;
const NAMES_KEY = "spanreel.names";

interface Props {
  trace: Trace;
  rows: Row[];
  selected: number | null;
  select: (index: number) => void;
  toggle: (row: Row) => void;
  zoom: Zoom;
  setZoom: (zoom: Zoom) => void;
  /** Null where the critical path is not shown. */
  critical: Map<Node, Segment[]> | null;
  found: Set<Node> | null;
  /** Services that are dimmed. */
  hidden: ReadonlySet<string>;
}

function namesShare(): number {
  try {
    const stored = Number(localStorage.getItem(NAMES_KEY));
    if (stored > 0.1 && stored < 0.9) return stored;
  } catch {
    // Then as wide as at first.
  }
  return innerWidth < 700 ? 0.46 : 0.36;
}

export function Waterfall({ trace, rows, selected, select, toggle, zoom, setZoom, critical, found, hidden }: Props) {
  const [attach, { width, height }] = useSize<HTMLDivElement>();
  const scroller = useRef<HTMLDivElement | null>(null);
  const hold = useCallback((element: HTMLDivElement | null) => {
    scroller.current = element;
    attach(element);
  }, []);
  const [first, setFirst] = useState(0);
  const [share, setShare] = useState(namesShare);
  const dragging = useRef(false);
  const names = Math.round(width * share);

  const at = rows.findIndex((row) => row.node.index === selected || row.repeats.some((node) => node.index === selected));
  useEffect(() => {
    const element = scroller.current;
    if (!element || at < 0) return;
    const top = at * ROW_PIXELS;
    if (top < element.scrollTop + ROW_PIXELS) element.scrollTop = Math.max(0, top - 3 * ROW_PIXELS);
    else if (top > element.scrollTop + element.clientHeight - 2 * ROW_PIXELS) element.scrollTop = top - element.clientHeight + 4 * ROW_PIXELS;
  }, [at, height === 0]);

  const wheel = (event: WheelEvent) => {
    if (!event.ctrlKey && !event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    const box = scroller.current?.getBoundingClientRect();
    if (!box || width <= names) return;
    event.preventDefault();
    const span = zoom.to - zoom.from;
    if (event.ctrlKey) {
      const pointer = zoom.from + (Math.max(0, event.clientX - box.left - names) / (width - names)) * span;
      const factor = Math.exp(event.deltaY * 0.004);
      setZoom(bounded({ from: pointer - (pointer - zoom.from) * factor, to: pointer + (zoom.to - pointer) * factor }));
    } else {
      const by = ((event.deltaX || event.deltaY) / (width - names)) * span;
      setZoom(bounded({ from: zoom.from + by, to: zoom.to + by }));
    }
  };
  // Preact's listener would be passive, and the page would zoom.
  useEffect(() => {
    const element = scroller.current;
    element?.addEventListener("wheel", wheel, { passive: false });
    return () => element?.removeEventListener("wheel", wheel);
  });

  const resize = (event: TargetedPointerEvent<HTMLElement>) => {
    if (!dragging.current) return;
    const box = scroller.current?.getBoundingClientRect();
    if (!box) return;
    const next = Math.min(0.8, Math.max(0.15, (event.clientX - box.left) / box.width));
    setShare(next);
    try {
      localStorage.setItem(NAMES_KEY, next.toFixed(3));
    } catch {
      // Not remembered.
    }
  };
  const last = Math.min(rows.length, first + Math.ceil(height / ROW_PIXELS) + 2 * MARGIN_ROWS);
  const shown: Row[] = [];
  const begin = Math.max(0, Math.min(first, rows.length - 1));
  for (let i = begin; i < last; i++) shown.push(rows[i]!);
  const total = Math.max(1, trace.duration);
  return (
    <>
      <div class="axis" style={{ "--names": `${names}px` }}>
        <span>Operation</span>
        <div class="ticks" aria-hidden="true">
          {ticks(zoom, total, width - names).map(({ share: x, text }) => (
            <i key={text} style={{ left: `${x * 100}%` }}>
              {text}
            </i>
          ))}
        </div>
        <div
          class="split"
          onPointerDown={(event) => { dragging.current = true; event.currentTarget.setPointerCapture(event.pointerId); }}
          onPointerMove={resize}
          onPointerUp={() => (dragging.current = false)}
        />
      </div>
      <div
        class="waterfall"
        ref={hold}
        tabIndex={0}
        role="treegrid"
        aria-label="Spans"
        aria-rowcount={rows.length}
        aria-activedescendant={at >= begin && at < last ? `row-${rows[at]!.key}` : undefined}
        onScroll={(event) => {
          const next = Math.max(0, Math.floor(event.currentTarget.scrollTop / ROW_PIXELS) - MARGIN_ROWS);
          if (next !== first) setFirst(next);
        }}
        style={{ "--names": `${names}px` }}
      >
        <div class="rows" role="rowgroup" style={{ height: `${rows.length * ROW_PIXELS}px` }}>
          {shown.map((row, i) => (
            <MemoLine
              key={row.key}
              row={row}
              at={begin + i}
              selected={begin + i === at}
              select={select}
              toggle={toggle}
              zoom={zoom}
              total={total}
              names={names}
              critical={critical}
              found={found}
              dim={hidden.has(row.node.service)}
            />
          ))}
        </div>
      </div>
    </>
  );
}

function ticks(zoom: Zoom, total: number, pixels: number): { share: number; text: string }[] {
  const wanted = Math.max(2, Math.floor(pixels / 95));
  const span = (zoom.to - zoom.from) * total;
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(Math.max(raw, 1)));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw) ?? power * 10;
  const result: { share: number; text: string }[] = [];
  for (let at = Math.ceil((zoom.from * total) / step) * step; at <= zoom.to * total && result.length < 40; at += step) {
    const share = (at - zoom.from * total) / span;
    if (share < 0.96) result.push({ share, text: duration(at) });
  }
  return result;
}

interface LineProps {
  row: Row;
  at: number;
  selected: boolean;
  select: (index: number) => void;
  toggle: (row: Row) => void;
  zoom: Zoom;
  total: number;
  names: number;
  critical: Map<Node, Segment[]> | null;
  found: Set<Node> | null;
  dim: boolean;
}

function Line({ row, at, selected, select, toggle, zoom, total, names, critical, found, dim }: LineProps) {
  const { node, repeats } = row;
  const span = node.span;
  const place = (nanos: number) => ((nanos / total - zoom.from) / (zoom.to - zoom.from)) * 100;
  const isGroup = repeats.length > 0;
  const end = isGroup ? repeats.reduce((max, one) => Math.max(max, one.end), 0) : node.end;
  const left = place(node.start);
  const right = place(end);
  const failed = isGroup ? repeats.filter((one) => one.error).length : node.error ? 1 : 0;
  // Deep spans stay readable: the indent takes at most half of the column.
  const indent = Math.min(node.depth * INDENT_PIXELS, Math.max(0, names * 0.5 - 30));
  const classes = ["line"];
  if (selected) classes.push("selected");
  if (failed > 0) classes.push("error");
  if (dim) classes.push("dim");
  if (!span) classes.push("ghost");
  if (found && (isGroup ? repeats.some((one) => found.has(one)) : found.has(node))) classes.push("found");
  const long = isGroup ? `${duration(repeats.reduce((sum, one) => sum + one.end - one.start, 0))} in all` : duration(node.end - node.start);
  const text = span ? (right < 72 ? { left: `${Math.max(0, right)}%` } : left > 28 ? { right: `${100 - Math.min(100, left)}%` } : { left: `${Math.max(0, left)}%` }) : null;
  const isInside = right >= 72 && left <= 28;
  const hides = node.below > 0 && !row.expanded;
  return (
    <div
      id={`row-${row.key}`}
      class={classes.join(" ")}
      role="row"
      aria-rowindex={at + 1}
      aria-level={node.depth + 1}
      aria-selected={selected}
      aria-expanded={row.expandable ? row.expanded : undefined}
      aria-label={`${isGroup ? `${count(repeats.length)} times ` : ""}${span ? `${node.service} ${node.name}, ${long}` : `parent never arrived, ${node.missingId}`}${failed > 0 ? `, ${count(failed)} failed` : ""}`}
      style={{ top: `${at * ROW_PIXELS}px` }}
      onClick={() => (isGroup ? toggle(row) : select(node.index))}
      onDblClick={() => row.expandable && toggle(row)}
    >
      <div class="name" role="gridcell" style={{ paddingLeft: `${4 + indent}px` }}>
        {row.expandable ? (
          <button
            type="button"
            class="fold"
            tabIndex={-1}
            aria-label={row.expanded ? "Close" : "Open"}
            onClick={(event) => { event.stopPropagation(); toggle(row); }}
          >
            <Icon name={row.expanded ? "down" : "right"} />
          </button>
        ) : (
          <span class="fold" />
        )}
        <i class="stripe" style={{ background: span ? colour(node.service) : "var(--warn)" }} />
        {span ? (
          <>
            {node.service !== node.parent?.service && <span class="svc">{node.service}</span>}
            {isGroup && <b class="times">× {count(repeats.length)}</b>}
            <span class="op">{node.name}</span>
          </>
        ) : (
          <span class="op">parent never arrived ({node.missingId})</span>
        )}
        {failed > 0 && <Icon name="error" />}
        {failed > 1 && <small class="bad-text">{failed}</small>}
        {hides && (
          <small title={`${node.below} spans below`}>
            +{count(node.below)}
            {node.errorsBelow > 0 && <b class="bad-text"> {node.errorsBelow} failed</b>}
          </small>
        )}
      </div>
      <div class="bars" role="gridcell" aria-label={`${long}, from ${duration(node.start)}`}>
        {span && right >= 0 && left <= 100 && (
          <>
            {isGroup ? (
              repeats.length <= 60 ? (
                repeats.map((one) => <Bar key={one.index} left={place(one.start)} right={place(one.end)} colour={colour(node.service)} />)
              ) : (
                <Bar left={left} right={right} colour={colour(node.service)} />
              )
            ) : (
              <Bar left={left} right={right} colour={colour(node.service)} />
            )}
            {critical?.get(node)?.map((segment) => <i key={segment.start} class="crit" style={{ left: `${place(segment.start)}%`, width: `${place(segment.end) - place(segment.start)}%` }} />)}
            {span.events.slice(0, 30).map((event, i) => {
              const x = place(Number(event.nano - span.startNano) + node.start);
              return <i key={i} class={event.name === "exception" ? "event bad" : "event"} style={{ left: `${x}%` }} title={event.name} />;
            })}
            {text && (
              <span class={isInside ? "what inside" : "what"} style={text}>
                {long}
              </span>
            )}
          </>
        )}
      </div>
    </div>
  );
}

/** Scrolling changes which rows there are, not the rows. */
const MemoLine = memo(Line);

function Bar({ left, right, colour }: { left: number; right: number; colour: string }) {
  // A bar that begins far outside would lose precision in the browser.
  const from = Math.max(-5, left);
  return <i class="bar" style={{ left: `${from}%`, width: `${Math.min(105, right) - from}%`, background: colour }} />;
}
