// Who calls whom, from the newest traces.
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
  width: number;
  height: number;
}

export const NODE_WIDTH = 208;
export const NODE_HEIGHT = 46;
const GAP_X = 92;
const GAP_Y = 22;
const MARGIN = 44;
/** Share of a node's calls below which a caller does not push it to the right. */
const WEIGHTY = 0.05;

export const quantile = (values: number[], q: number): number => {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
};

export function buildMap(answer: SearchAnswer): ServiceMap {
  const nodes = new Map<string, MapNode>();
  const edges = new Map<string, MapEdge>();
  const node = (kind: MapNode["kind"], name: string): MapNode => {
    const id = `${kind} ${name}`;
    let found = nodes.get(id);
    if (!found) nodes.set(id, (found = { id, name, kind, requests: 0, failed: 0, durations: [], layer: 0, x: 0, y: 0 }));
    return found;
  };
  const call = (from: MapNode, to: MapNode, nanos: number, failed: boolean) => {
    const id = `${from.id}\u0000${to.id}`;
    let edge = edges.get(id);
    if (!edge) edges.set(id, (edge = { from: from.id, to: to.id, calls: 0, failed: 0, durations: [] }));
    edge.calls += 1;
    edge.failed += failed ? 1 : 0;
    edge.durations.push(nanos);
  };
  let spans = 0;
  const traces = answer.traces ?? [];
  for (const trace of traces) {
    const all = (trace.spanSets ?? []).flatMap((set) => set.spans);
    spans += all.length;
    const byId = new Map(all.map((span) => [span.spanID, span]));
    const answered = new Set<string>();
    for (const span of all) {
      const kind = of(span, "kind");
      const service = node("service", of(span, "service.name") || "?");
      const nanos = Number(span.durationNanos ?? 0);
      const failed = of(span, "status") === "error";
      if (kind === "server" || kind === "consumer" || !of(span, "span:parentID")) {
        service.requests += 1;
        service.failed += failed ? 1 : 0;
        service.durations.push(nanos);
      }
      if (kind !== "server" && kind !== "consumer") continue;
      const parent = byId.get(of(span, "span:parentID"));
      const caller = parent ? of(parent, "service.name") : "";
      if (!parent || caller === "" || caller === service.name) continue;
      answered.add(parent.spanID);
      const queue = of(span, "messaging.system") && (of(span, "messaging.destination.name") || of(span, "messaging.system"));
      if (queue) {
        const to = node("queue", queue);
        to.requests += 1;
        to.durations.push(Number(parent.durationNanos ?? 0));
        call(node("service", caller), to, Number(parent.durationNanos ?? 0), of(parent, "status") === "error");
        call(node("queue", queue), service, nanos, failed);
      } else call(node("service", caller), service, nanos, failed);
    }
    for (const span of all) {
      const kind = of(span, "kind");
      if ((kind !== "client" && kind !== "producer") || answered.has(span.spanID)) continue;
      const database = of(span, "db.system.name") || of(span, "db.system");
      const queue = of(span, "messaging.destination.name") || of(span, "messaging.system");
      const address = of(span, "peer.service") || of(span, "server.address");
      const from = node("service", of(span, "service.name") || "?");
      const to = database
        ? node("database", address ? `${database} · ${address}` : database)
        : queue
          ? node("queue", queue)
          : // A span that only says where it went is drawn as a peer; one in a trace that goes on would be drawn twice.
            address && !all.some((one) => of(one, "span:parentID") === span.spanID)
            ? node("peer", address)
            : null;
      if (!to) continue;
      const failed = of(span, "status") === "error";
      to.requests += 1;
      to.failed += failed ? 1 : 0;
      to.durations.push(Number(span.durationNanos ?? 0));
      call(from, to, Number(span.durationNanos ?? 0), failed);
    }
  }
  return layout([...nodes.values()], [...edges.values()], traces.length, spans);
}

const of = (span: FoundSpan, key: string): string => valueText(span.attributes?.find((one) => one.key === key)?.value);

/** Callers to the left. The order within a layer follows the callers, and names break ties: the same map looks the same. */
function layout(nodes: MapNode[], edges: MapEdge[], traces: number, spans: number): ServiceMap {
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
  return { nodes, edges, traces, spans, width: MARGIN * 2 + layers.length * (NODE_WIDTH + GAP_X) - GAP_X, height };
}

/** Whether there is a call in the other direction that was seen more often. */
function leadsBack(edges: MapEdge[], edge: MapEdge): boolean {
  return edges.some((other) => other.from === edge.to && other.to === edge.from && (other.calls > edge.calls || (other.calls === edge.calls && other.from < edge.from)));
}
