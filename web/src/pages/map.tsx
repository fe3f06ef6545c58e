import { useMemo } from "preact/hooks";
import { search } from "../api";
import { colour } from "../colour";
import { count, duration, percent } from "../format";
import { useAnswer, useTitle } from "../hooks";
import { MAP_FIELDS, NODE_HEIGHT, NODE_WIDTH, buildMap, quantile } from "../map";
import type { MapEdge, MapNode, ServiceMap } from "../map";
import { keepRange, range } from "../range";
import { href, parameter } from "../router";
import { condition, takesMetrics } from "../traceql";
import { Empty, Failure, Waiting } from "../ui";

/** The newest traces that the map is made of, and spans of each. */
const TRACES = 500;
const SPANS = 100;

export default function MapPage() {
  useTitle("Map");
  const { start, end } = range.value;
  const query = parameter("q") || "{ kind != internal }";
  const asked = takesMetrics(query) ? `${query} | select(${MAP_FIELDS})` : query;
  const answer = useAnswer(`${asked} ${start} ${end}`, (signal) => search(asked, { start, end }, TRACES, SPANS, signal));
  const map = useMemo(() => (answer.data ? buildMap(answer.data) : null), [answer.data]);
  if (answer.error) return <Failure error={answer.error} what="No map" retry={answer.reload} />;
  if (!map) return <Waiting />;
  if (map.nodes.length === 0) return <Empty title="No traces in this time" />;
  return (
    <div class="explain">
      <p class="note">
        From the newest {count(map.traces)} traces of this time ({count(map.spans)} spans{map.traces >= TRACES ? "; there are more" : ""}). Databases, queues and peers are what clients name. Click for the traces.
      </p>
      <div class="map-frame" tabIndex={0}>
        <Picture map={map} />
      </div>
      <Table map={map} />
    </div>
  );
}

function target(node: MapNode): string {
  const q =
    node.kind === "service" ? condition("resource.service.name", node.name)
    : node.kind === "database" ? `${condition("span.server.address", node.name.split(" · ")[1] ?? "")}`
    : node.kind === "queue" ? condition("span.messaging.destination.name", node.name)
    : condition("span.server.address", node.name);
  return href("traces", { ...keepRange(), q: `{ ${q} }` });
}

function Picture({ map }: { map: ServiceMap }) {
  const byId = new Map(map.nodes.map((node) => [node.id, node]));
  const most = map.edges.reduce((max, edge) => Math.max(max, edge.calls), 1);
  return (
    <svg width={map.width} height={map.height} viewBox={`0 0 ${map.width} ${map.height}`} role="group" aria-label="Services and their calls">
      <defs>
        <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">
          <path d="M0 0L8 4L0 8z" fill="context-stroke" />
        </marker>
      </defs>
      {map.edges.map((edge) => (
        <Edge key={`${edge.from} ${edge.to}`} edge={edge} from={byId.get(edge.from)!} to={byId.get(edge.to)!} most={most} />
      ))}
      {map.nodes.map((node) => (
        <a key={node.id} href={target(node)} class="map-node">
          <rect x={node.x} y={node.y} width={NODE_WIDTH} height={NODE_HEIGHT} rx={node.kind === "service" ? 8 : node.kind === "queue" ? 22 : 3} stroke-dasharray={node.kind === "peer" ? "4 3" : undefined} />
          <rect x={node.x} y={node.y + 8} width={4} height={NODE_HEIGHT - 16} style={{ fill: node.kind === "service" ? colour(node.name) : "var(--muted)", stroke: "none" }} />
          <text x={node.x + 13} y={node.y + 19}>{clipped(node.name, 24)}</text>
          <text x={node.x + 13} y={node.y + 35} class="sub">
            {node.kind === "service" ? "" : `${node.kind} · `}
            {count(node.requests)} · p95 {duration(quantile(node.durations, 0.95))}
            {node.failed > 0 && <tspan class="bad"> · {percent(node.failed / node.requests)} failed</tspan>}
          </text>
        </a>
      ))}
    </svg>
  );
}

const clipped = (text: string, characters: number): string => (text.length > characters ? `${text.slice(0, characters - 1)}…` : text);

function Edge({ edge, from, to, most }: { edge: MapEdge; from: MapNode; to: MapNode; most: number }) {
  const back = to.layer < from.layer;
  const y0 = from.y + NODE_HEIGHT / 2;
  const y1 = to.y + NODE_HEIGHT / 2;
  const x0 = from.x + NODE_WIDTH;
  const x1 = to.x - 2;
  const bend = back ? 70 : Math.max(40, (x1 - x0) / 2);
  // A call over several layers goes around what stands between.
  const bow = (to.layer - from.layer - 1) * (y1 < y0 ? -46 : 46);
  const path = to.layer === from.layer
    ? `M${x0} ${y0}C${x0 + 62} ${y0} ${x0 + 62} ${y1} ${x0 + 2} ${y1}`
    : back
    ? `M${from.x + NODE_WIDTH / 2} ${from.y}C${from.x + NODE_WIDTH / 2} ${from.y - bend} ${to.x + NODE_WIDTH / 2} ${to.y - bend} ${to.x + NODE_WIDTH / 2} ${to.y - 2}`
    : `M${x0} ${y0}C${x0 + bend} ${y0 + bow} ${x1 - bend} ${y1 + bow} ${x1} ${y1}`;
  const width = 1 + 3.5 * (Math.log1p(edge.calls) / Math.log1p(most));
  return (
    <path class={edge.failed > 0 ? "map-edge bad" : "map-edge"} d={path} stroke-width={width} marker-end="url(#arrow)">
      <title>
        {from.name} → {to.name}: {count(edge.calls)} calls, {percent(edge.failed / edge.calls)} failed, p95 {duration(quantile(edge.durations, 0.95))}
      </title>
    </path>
  );
}

function Table({ map }: { map: ServiceMap }) {
  const name = new Map(map.nodes.map((node) => [node.id, node.name]));
  const edges = [...map.edges].sort((a, b) => b.calls - a.calls);
  return (
    <div class="table-wrap" tabIndex={0}>
      <table class="data">
        <thead>
          <tr>
            <th scope="col"><span>Caller</span></th>
            <th scope="col"><span>Called</span></th>
            <th scope="col" class="number"><span>Calls</span></th>
            <th scope="col" class="number"><span>Failed</span></th>
            <th scope="col" class="number"><span>p50</span></th>
            <th scope="col" class="number"><span>p95</span></th>
          </tr>
        </thead>
        <tbody>
          {edges.map((edge) => (
            <tr key={`${edge.from} ${edge.to}`}>
              <td>{name.get(edge.from)}</td>
              <td>{name.get(edge.to)}</td>
              <td class="number">{count(edge.calls)}</td>
              <td class="number">{edge.failed > 0 ? <b class="bad-text">{percent(edge.failed / edge.calls)}</b> : "0%"}</td>
              <td class="number">{duration(quantile(edge.durations, 0.5))}</td>
              <td class="number">{duration(quantile(edge.durations, 0.95))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
