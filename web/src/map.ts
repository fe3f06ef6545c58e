// Who calls whom.
import { valueText } from "./api";
import type { FoundSpan, SearchAnswer } from "./api";

/** What the map asks of each span. */
export const MAP_FIELDS = "span:parentID, resource.service.name, kind, status, span.db.system.name, span.db.system, span.messaging.system, span.messaging.destination.name, span.peer.service, span.server.address";

export interface MapNode {
  id: string;
  name: string;
  kind: "service" | "database" | "queue" | "peer";
  requests: number;
  failed: number;
  durations: number[];
  layer: number;
  x: number;
  y: number;
}

export interface MapEdge {
  from: string;
  to: string;
  calls: number;
  failed: number;
  durations: number[];
}

export interface ServiceMap {
  nodes: MapNode[];
  edges: MapEdge[];
  traces: number;
  spans: number;
  /** Nodes that were asked least, beyond what is drawn. */
  leftOut: number;
  width: number;
  height: number;
  /** How far calls bow out above the nodes' part of the picture. */
  above: number;
}

export const NODE_WIDTH = 208;
export const NODE_HEIGHT = 46;
const GAP_X = 136;
const GAP_Y = 22;
const MARGIN = 44;
/** Share of a node's calls below which a caller does not push it to the right. */
const WEIGHTY = 0.05;
/** Nodes that are drawn. */
const NODES_MAX = 150;

export const quantile = (values: number[], q: number): number => {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
};

/** What the map needs to know of a span. */
export interface MapSpan {
  id: string;
  parent: string;
  service: string;
  kind: string;
  nanos: number;
  failed: boolean;
  attribute: (key: string) => string;
}

/** From the traces of a search that asked for `MAP_FIELDS`. */
export function mapOfSearch(answer: SearchAnswer): ServiceMap {
  const traces = (answer.traces ?? []).map((trace) => (trace.spanSets ?? []).flatMap((set) => set.spans).map(spanOfSearch));
  return buildMap(traces);
}

function spanOfSearch(span: FoundSpan): MapSpan {
  const attribute = (key: string) => valueText(span.attributes?.find((one) => one.key === key)?.value);
  return {
    id: span.spanID,
    parent: attribute("span:parentID"),
    service: attribute("service.name"),
    kind: attribute("kind"),
    nanos: Number(span.durationNanos ?? 0),
    failed: attribute("status") === "error",
    attribute,
  };
}

export function buildMap(traces: MapSpan[][]): ServiceMap {
  const nodes = new Map<string, MapNode>();
  const edges = new Map<string, MapEdge>();
  const node = (kind: MapNode["kind"], name: string): MapNode => {
    const id = `${kind} ${name}`;
    let found = nodes.get(id);
    if (!found) nodes.set(id, (found = { id, name, kind, requests: 0, failed: 0, durations: [], layer: 0, x: 0, y: 0 }));
    return found;
  };
  const asked = (node: MapNode, span: MapSpan) => {
    node.requests += 1;
    node.failed += span.failed ? 1 : 0;
    node.durations.push(span.nanos);
  };
  const call = (from: MapNode, to: MapNode, span: MapSpan) => {
    const id = `${from.id}\u0000${to.id}`;
    let edge = edges.get(id);
    if (!edge) edges.set(id, (edge = { from: from.id, to: to.id, calls: 0, failed: 0, durations: [] }));
    edge.calls += 1;
    edge.failed += span.failed ? 1 : 0;
    edge.durations.push(span.nanos);
  };
  let spans = 0;
  for (const all of traces) {
    spans += all.length;
    const byId = new Map(all.map((span) => [span.id, span]));
    const parents = new Set(all.map((span) => span.parent));
    const answered = new Set<string>();
    for (const span of all) {
      const service = node("service", span.service || "?");
      const isAsked = span.kind === "server" || span.kind === "consumer";
      if (isAsked || span.parent === "") asked(service, span);
      if (!isAsked) continue;
      const parent = byId.get(span.parent);
      if (!parent || parent.service === "" || parent.service === service.name) continue;
      answered.add(parent.id);
      const queue = span.attribute("messaging.system") && (span.attribute("messaging.destination.name") || span.attribute("messaging.system"));
      const caller = node("service", parent.service);
      if (queue) {
        const to = node("queue", queue);
        asked(to, parent);
        call(caller, to, parent);
        call(to, service, span);
      } else call(caller, service, span);
    }
    for (const span of all) {
      if ((span.kind !== "client" && span.kind !== "producer") || answered.has(span.id)) continue;
      const database = span.attribute("db.system.name") || span.attribute("db.system");
      const queue = span.attribute("messaging.destination.name") || span.attribute("messaging.system");
      const address = span.attribute("peer.service") || span.attribute("server.address");
      const to = database
        ? node("database", address ? `${database} · ${address}` : database)
        : queue
          ? node("queue", queue)
          : // A span that only says where it went is drawn as a peer; one in a trace that goes on would be drawn twice.
            address && !parents.has(span.id)
            ? node("peer", address)
            : null;
      if (!to) continue;
      asked(to, span);
      call(node("service", span.service || "?"), to, span);
    }
  }
  const kept = busiest([...nodes.values()], [...edges.values()]);
  return { ...layout(kept.nodes, kept.edges), traces: traces.length, spans, leftOut: nodes.size - kept.nodes.length };
}

/** A map of thousands of nodes can be neither drawn in time nor read. */
function busiest(nodes: MapNode[], edges: MapEdge[]): { nodes: MapNode[]; edges: MapEdge[] } {
  if (nodes.length <= NODES_MAX) return { nodes, edges };
  const kept = [...nodes].sort((a, b) => b.requests - a.requests || a.name.localeCompare(b.name)).slice(0, NODES_MAX);
  const ids = new Set(kept.map((one) => one.id));
  return { nodes: kept, edges: edges.filter((edge) => ids.has(edge.from) && ids.has(edge.to)) };
}

/** Callers to the left. The order within a layer follows the callers, and names break ties: the same map looks the same. */
function layout(nodes: MapNode[], edges: MapEdge[]): Pick<ServiceMap, "nodes" | "edges" | "width" | "height" | "above"> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  // What is called rarely does not decide where a node stands.
  const called = new Map<string, number>();
  for (const edge of edges) called.set(edge.to, (called.get(edge.to) ?? 0) + edge.calls);
  const weighty = edges.filter((edge) => edge.calls >= WEIGHTY * (called.get(edge.to) ?? 0));
  // Longest path from the left; a ring stops after as many rounds as there are nodes.
  for (let round = 0; round < nodes.length; round++) {
    let moved = false;
    for (const edge of weighty) {
      const from = byId.get(edge.from)!;
      const to = byId.get(edge.to)!;
      if (from !== to && to.layer < from.layer + 1 && from.layer + 1 < nodes.length && !leadsBack(weighty, edge)) {
        to.layer = from.layer + 1;
        moved = true;
      }
    }
    if (!moved) break;
  }
  const layers: MapNode[][] = [];
  for (const node of nodes) (layers[node.layer] ??= []).push(node);
  const rank = new Map<string, number>();
  layers.forEach((layer, index) => {
    const weight = (node: MapNode) => {
      const callers = edges.filter((edge) => edge.to === node.id).map((edge) => rank.get(edge.from)).filter((at) => at !== undefined);
      return callers.length === 0 ? 0 : callers.reduce((sum, at) => sum + at, 0) / callers.length;
    };
    layer.sort((a, b) => (index === 0 ? 0 : weight(a) - weight(b)) || a.name.localeCompare(b.name));
    layer.forEach((node, i) => rank.set(node.id, i / Math.max(1, layer.length - 1 || 1)));
  });
  const tallest = layers.reduce((max, layer) => Math.max(max, layer?.length ?? 0), 0);
  const height = MARGIN * 2 + tallest * (NODE_HEIGHT + GAP_Y) - GAP_Y;
  layers.forEach((layer, index) => {
    const own = layer.length * (NODE_HEIGHT + GAP_Y) - GAP_Y;
    layer.forEach((node, i) => {
      node.x = MARGIN + index * (NODE_WIDTH + GAP_X);
      node.y = (height - own) / 2 + i * (NODE_HEIGHT + GAP_Y);
    });
  });
  let [above, below] = [0, 0];
  for (const edge of edges) {
    const [from, to] = [byId.get(edge.from)!, byId.get(edge.to)!];
    if (to.layer <= from.layer) continue;
    const bow = bowOf(from, to) * BOW_REACH;
    // It leaves a straight line between its ends by so much at most.
    above = Math.max(above, -bow - Math.min(from.y, to.y));
    below = Math.max(below, Math.max(from.y, to.y) + NODE_HEIGHT / 2 + bow + MARGIN / 2 - height);
  }
  return { nodes, edges, width: MARGIN * 2 + layers.length * (NODE_WIDTH + GAP_X) - GAP_X, height: height + below, above };
}

/** Pixels by which a call over several layers goes around what stands between, for each of them. */
const BOW = 46;
/** Of a curve's bow, how much of it is reached. */
const BOW_REACH = 0.75;

/** By how much a call's curve is drawn out of the way, downwards; nothing between neighbours. */
export const bowOf = (from: MapNode, to: MapNode): number => (to.layer - from.layer - 1) * (to.y < from.y ? -BOW : BOW);

/** Whether there is a call in the other direction that was seen more often. */
function leadsBack(edges: MapEdge[], edge: MapEdge): boolean {
  return edges.some((other) => other.from === edge.to && other.to === edge.from && (other.calls > edge.calls || (other.calls === edge.calls && other.from < edge.from)));
}
