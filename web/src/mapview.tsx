// The map as a picture and, for those who do not see it, as a table.
import type { ComponentChildren, TargetedKeyboardEvent } from "preact";
import { colour } from "./colour";
import { count, duration, percent, rate } from "./format";
import { NODE_HEIGHT, NODE_WIDTH, bowOf, quantile } from "./map";
import type { MapEdge, MapNode, ServiceMap } from "./map";
import { Table as Columns } from "./ui";

/** Edges that carry their figures; with more of them the picture could not be read. */
const LABELLED_MAX = 40;

/** A picture that does not fit is drawn so much smaller at most, and scrolls then. */
const SCALE_MIN = 0.66;

interface Props {
  map: ServiceMap;
  /** Seconds that the calls are of, for rates; 0 counts them. */
  seconds: number;
  /** Where a click leads: an address, or what to do. */
  open: (target: MapNode | MapEdge) => string | (() => void);
}

const often = (calls: number, seconds: number): string => (seconds > 0 ? `${rate(calls / seconds)}/s` : `${count(calls)}×`);

function figures({ calls, failed, durations }: MapEdge, seconds: number): string {
  return `${often(calls, seconds)}${failed > 0 ? `, ${percent(failed / calls)} failed` : ""}, p95 ${duration(quantile(durations, 0.95))}`;
}

export function Picture({ map, seconds, open }: Props) {
  const byId = new Map(map.nodes.map((node) => [node.id, node]));
  const most = map.edges.reduce((max, edge) => Math.max(max, edge.calls), 1);
  return (
    <svg viewBox={`0 ${-map.above} ${map.width} ${map.above + map.height}`} style={{ maxWidth: `${map.width}px`, minWidth: `${map.width * SCALE_MIN}px` }} role="group" aria-label="Services and their calls">
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">
          <path d="M0 0L8 4L0 8z" fill="context-stroke" />
        </marker>
      </defs>
      {map.edges.map((edge) => (
        <Edge key={`${edge.from} ${edge.to}`} edge={edge} from={byId.get(edge.from)!} to={byId.get(edge.to)!} most={most} seconds={seconds} leads={open(edge)} />
      ))}
      {labels(map, byId, seconds).map(({ edge, text, failed, x, y }) => (
        <text key={`${edge.from} ${edge.to}`} class={edge.failed > 0 ? "map-label bad" : "map-label"} x={x} y={y} text-anchor="middle">
          {text}
          {failed && <tspan x={x} dy={LABEL_HEIGHT}>{failed}</tspan>}
        </text>
      ))}
      {map.nodes.map((node) => (
        <Target key={node.id} to={open(node)} class="map-node">
          <rect x={node.x} y={node.y} width={NODE_WIDTH} height={NODE_HEIGHT} rx={node.kind === "service" ? 8 : node.kind === "queue" ? 22 : 3} stroke-dasharray={node.kind === "peer" ? "4 3" : undefined} />
          <rect x={node.x} y={node.y + 8} width={4} height={NODE_HEIGHT - 16} style={{ fill: node.kind === "service" ? colour(node.name) : "var(--muted)", stroke: "none" }} />
          <text x={node.x + 13} y={node.y + 19}>{clipped(node.name, 24)}</text>
          <text x={node.x + 13} y={node.y + 35} class="sub">
            {node.kind === "service" ? "" : `${node.kind} · `}
            {often(node.requests, seconds)} · p95 {duration(quantile(node.durations, 0.95))}
            {node.failed > 0 && <tspan class="bad"> · {percent(node.failed / node.requests)} failed</tspan>}
          </text>
        </Target>
      ))}
    </svg>
  );
}

interface TargetProps {
  to: string | (() => void);
  class: string;
  children: ComponentChildren;
}

/** Something in the picture that can be clicked, also by keys. */
function Target({ to, class: name, children }: TargetProps) {
  if (typeof to === "string") return <a href={to} class={name}>{children}</a>;
  const keys = (event: TargetedKeyboardEvent<SVGGElement>) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    to();
  };
  // In SVG the names of attributes are as they are written.
  return <g class={name} role="button" tabindex={0} onClick={to} onKeyDown={keys}>{children}</g>;
}

interface Placed {
  edge: MapEdge;
  /** Rate and p95, and below that which share failed. */
  text: string;
  failed: string;
  x: number;
  y: number;
}

/** Along an edge where its figures stand: behind the bundle in which it leaves, before the one in which it arrives. */
const LABEL_AT = 0.58;
const LABEL_HEIGHT = 12;
const CHARACTER_WIDTH = 6;

/** Figures of edges, where they cover neither each other nor a node; the table has all of them. */
function labels(map: ServiceMap, byId: Map<string, MapNode>, seconds: number): Placed[] {
  const placed: Placed[] = [];
  if (map.edges.length > LABELLED_MAX) return placed;
  const t = LABEL_AT;
  const bezier = (a: number, b: number, c: number, d: number) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  for (const edge of [...map.edges].sort((a, b) => b.failed / b.calls - a.failed / a.calls || b.calls - a.calls)) {
    const from = byId.get(edge.from)!;
    const to = byId.get(edge.to)!;
    if (to.layer !== from.layer + 1) continue;
    const [x0, x1] = [from.x + NODE_WIDTH, to.x];
    const middle = (x0 + x1) / 2;
    const text = `${often(edge.calls, seconds)} · ${duration(quantile(edge.durations, 0.95))}`;
    const failed = edge.failed > 0 ? `${percent(edge.failed / edge.calls)} failed` : "";
    const x = bezier(x0, middle, middle, x1);
    const y = bezier(from.y, from.y, to.y, to.y) + NODE_HEIGHT / 2 - 3;
    const half = (text.length * CHARACTER_WIDTH) / 2;
    if (x - half < x0 || x + half > x1) continue;
    const bottom = (label: { y: number; failed: string }) => label.y + (label.failed ? LABEL_HEIGHT : 0);
    const label = { edge, text, failed, x, y };
    const isFree = placed.every((one) => one.y >= bottom(label) + LABEL_HEIGHT || y >= bottom(one) + LABEL_HEIGHT || Math.abs(one.x - x) > half + (one.text.length * CHARACTER_WIDTH) / 2);
    if (isFree) placed.push(label);
  }
  return placed;
}

const clipped = (text: string, characters: number): string => (text.length > characters ? `${text.slice(0, characters - 1)}…` : text);

/** How far a call within a layer reaches out, by three quarters: that must fit into the margin behind the last layer. */
const LOOP = 50;

interface EdgeProps {
  edge: MapEdge;
  from: MapNode;
  to: MapNode;
  most: number;
  seconds: number;
  leads: string | (() => void);
}

function Edge({ edge, from, to, most, seconds, leads }: EdgeProps) {
  const back = to.layer < from.layer;
  const y0 = from.y + NODE_HEIGHT / 2;
  const y1 = to.y + NODE_HEIGHT / 2;
  const x0 = from.x + NODE_WIDTH;
  const x1 = to.x - 2;
  const bend = back ? 50 : Math.max(40, (x1 - x0) / 2);
  const bow = bowOf(from, to);
  const path = to.layer === from.layer
    ? `M${x0} ${y0}C${x0 + LOOP} ${y0} ${x0 + LOOP} ${y1} ${x0 + 2} ${y1}`
    : back
    ? `M${from.x + NODE_WIDTH / 2} ${from.y}C${from.x + NODE_WIDTH / 2} ${from.y - bend} ${to.x + NODE_WIDTH / 2} ${to.y - bend} ${to.x + NODE_WIDTH / 2} ${to.y - 2}`
    : `M${x0} ${y0}C${x0 + bend} ${y0 + bow} ${x1 - bend} ${y1 + bow} ${x1} ${y1}`;
  const width = 1 + 3.5 * (Math.log1p(edge.calls) / Math.log1p(most));
  const drawn = (
    <>
      <title>
        {from.name} → {to.name}: {count(edge.calls)} calls, {figures(edge, seconds)}
      </title>
      <path class={edge.failed > 0 ? "map-edge bad" : "map-edge"} d={path} stroke-width={width} marker-end="url(#arrow)" />
      <path class="map-hit" d={path} />
    </>
  );
  // Only for the pointer: for keys and for those who do not see it, the table leads to the same.
  if (typeof leads === "string") return <a href={leads} class="map-call" tabindex={-1} aria-hidden="true">{drawn}</a>;
  return <g class="map-call" aria-hidden="true" onClick={leads}>{drawn}</g>;
}

export function Table({ map, seconds, open }: Props) {
  const name = new Map(map.nodes.map((node) => [node.id, node.name]));
  const edges = [...map.edges].sort((a, b) => b.calls - a.calls);
  return (
    <Columns columns={["Caller", "Called", seconds > 0 ? "#Per second" : "#Calls", "#Failed", "#p50", "#p95"]}>
      {edges.map((edge) => (
        <tr key={`${edge.from} ${edge.to}`}>
          <td>{name.get(edge.from)}</td>
          <td>
            <Opened to={open(edge)}>{name.get(edge.to)}</Opened>
          </td>
          <td class="number">{seconds > 0 ? rate(edge.calls / seconds) : count(edge.calls)}</td>
          <td class="number">{edge.failed > 0 ? <b class="bad-text">{percent(edge.failed / edge.calls)}</b> : "0%"}</td>
          <td class="number">{duration(quantile(edge.durations, 0.5))}</td>
          <td class="number">{duration(quantile(edge.durations, 0.95))}</td>
        </tr>
      ))}
    </Columns>
  );
}

function Opened({ to, children }: { to: string | (() => void); children: ComponentChildren }) {
  if (typeof to === "string") return <a href={to}>{children}</a>;
  return <button type="button" class="linkish" onClick={to}>{children}</button>;
}
