// A trace as a tree with times. Loops over explicit stacks: a trace may be deeper than the call stack.
import type { SpanData } from "./read";

/** Repeated siblings become one row from this number on. */
export const REPEATS_MIN = 8;

export interface Node {
  index: number;
  /** Null for a parent that never arrived. */
  span: SpanData | null;
  /** Of a parent that never arrived: its id. */
  missingId: string;
  service: string;
  name: string;
  parent: Node | null;
  children: Node[];
  depth: number;
  /** Nanoseconds since the trace's start, corrected by `shift`. */
  start: number;
  end: number;
  self: number;
  /** Added to the times of this span where clocks are corrected. */
  shift: number;
  error: boolean;
  /** Spans below this one, and how many of them failed. */
  below: number;
  errorsBelow: number;
  /** Its parents form a ring. */
  ring: boolean;
  /** Nanoseconds that this span starts before its parent. */
  early: number;
  /** Another span has the same id. */
  twin: boolean;
}

export interface ServiceShare {
  service: string;
  spans: number;
  errors: number;
  self: number;
}

export interface Segment {
  node: Node;
  start: number;
  end: number;
}

export interface Trace {
  id: string;
  startNano: bigint;
  /** Nanoseconds from the first start to the last end. */
  duration: number;
  roots: Node[];
  /** Every node in the order of the waterfall. */
  nodes: Node[];
  spans: number;
  errors: number;
  depth: number;
  services: ServiceShare[];
  /** Spans whose parent never arrived. */
  orphans: number;
  rings: number;
  negative: number;
  twins: number;
  /** Spans that start before their parents, and the largest such time. */
  early: number;
  earlyMax: number;
  /** Where the time went, from the end of the main root to its start. */
  critical: Segment[];
}

export function buildTrace(id: string, spans: SpanData[], clocks: "as sent" | "corrected" = "as sent"): Trace {
  const first = spans.reduce((min, span) => (min === null || span.startNano < min ? span.startNano : min), null as bigint | null) ?? 0n;
  const nodes = spans.map((span) => newNode(span, first));
  const { roots, orphans, rings, twins } = connect(nodes);
  for (const root of roots) sortChildren(root);
  markEarly(nodes);
  const early = nodes.filter((node) => node.early > 0);
  if (clocks === "corrected") correct(roots);
  roots.sort((a, b) => a.start - b.start);

  const ordered: Node[] = [];
  let depth = 0;
  preorder(roots, (node) => {
    node.index = ordered.length;
    node.depth = node.parent ? node.parent.depth + 1 : 0;
    depth = Math.max(depth, node.depth + 1);
    ordered.push(node);
  });
  // Children come behind their parents, so that sums are finished from the end.
  for (let i = ordered.length - 1; i >= 0; i--) {
    const node = ordered[i]!;
    if (!node.span && node.children.length > 0) {
      node.start = node.children.reduce((min, child) => Math.min(min, child.start), Infinity);
      node.end = node.children.reduce((max, child) => Math.max(max, child.end), -Infinity);
    }
    node.self = node.span ? selfTime(node) : 0;
    if (node.parent) {
      node.parent.below += node.below + (node.span ? 1 : 0);
      node.parent.errorsBelow += node.errorsBelow + (node.error ? 1 : 0);
    }
  }
  let start = Infinity;
  let end = -Infinity;
  for (const node of ordered) {
    start = Math.min(start, node.start);
    end = Math.max(end, node.end);
  }
  if (ordered.length === 0) start = end = 0;
  // Corrected clocks may move the first start.
  for (const node of ordered) {
    node.start -= start;
    node.end -= start;
  }
  const main = roots.reduce((best, root) => (!best || root.below > best.below ? root : best), null as Node | null);
  return {
    id,
    startNano: first + BigInt(Math.round(start)),
    duration: end - start,
    roots,
    nodes: ordered,
    spans: spans.length,
    errors: nodes.filter((node) => node.error).length,
    depth,
    services: shares(nodes),
    orphans,
    rings,
    negative: spans.filter((span) => span.endNano < span.startNano).length,
    twins,
    early: early.length,
    earlyMax: early.reduce((max, node) => Math.max(max, node.early), 0),
    critical: main ? criticalPath(main) : [],
  };
}

function newNode(span: SpanData | null, first: bigint, missingId = ""): Node {
  const start = span ? Number(span.startNano - first) : 0;
  return {
    index: 0,
    span,
    missingId,
    service: span?.resource.service ?? "",
    name: span ? span.name || "(no name)" : "",
    parent: null,
    children: [],
    depth: 0,
    start,
    // A span that ends before it starts is drawn as a moment; the drawer says what was sent.
    end: span ? Math.max(start, Number(span.endNano - first)) : 0,
    self: 0,
    shift: 0,
    error: span?.status === "error",
    below: 0,
    errorsBelow: 0,
    ring: false,
    early: 0,
    twin: false,
  };
}

/** Joins children to parents. Whatever is sent, each node gets one place. */
function connect(nodes: Node[]): { roots: Node[]; orphans: number; rings: number; twins: number } {
  const byId = new Map<string, Node[]>();
  for (const node of nodes) {
    const id = node.span?.spanId ?? "";
    const same = byId.get(id);
    if (same) same.push(node);
    else byId.set(id, [node]);
  }
  let twins = 0;
  for (const same of byId.values()) {
    if (same.length < 2) continue;
    twins += same.length;
    for (const node of same) node.twin = true;
    // Zipkin's client and server share an id: the server's half belongs below the client's.
    same.sort((a, b) => Number(b.span?.kind === "client") - Number(a.span?.kind === "client"));
  }
  const ghosts = new Map<string, Node>();
  const roots: Node[] = [];
  let orphans = 0;
  for (const node of nodes) {
    const same = byId.get(node.span?.spanId ?? "");
    const client = same?.[0];
    if (client && client !== node && client.span?.kind === "client" && node.span?.kind === "server") {
      node.parent = client;
      continue;
    }
    const parentId = node.span?.parentId ?? "";
    if (parentId === "") continue;
    const parents = byId.get(parentId);
    if (parents) {
      const server = parents.find((one) => one !== node && one.span?.kind === "server" && node.span?.kind !== "server");
      node.parent = server ?? parents.find((one) => one !== node) ?? node;
      continue;
    }
    orphans += 1;
    let ghost = ghosts.get(parentId);
    if (!ghost) {
      ghost = newNode(null, 0n, parentId);
      ghosts.set(parentId, ghost);
      roots.push(ghost);
    }
    node.parent = ghost;
  }
  const rings = openRings(nodes);
  for (const node of nodes) {
    if (node.parent) node.parent.children.push(node);
    else roots.push(node);
  }
  return { roots, orphans, rings, twins };
}

/** Where parents form a ring, its first span becomes a root. */
function openRings(nodes: Node[]): number {
  let rings = 0;
  const done = new Set<Node>();
  for (const node of nodes) {
    const path = new Set<Node>();
    let at: Node | null = node;
    while (at && !done.has(at) && !path.has(at)) {
      path.add(at);
      at = at.parent;
    }
    if (at && path.has(at)) {
      let first: Node = at;
      for (let one = at.parent; one && one !== at; one = one.parent) {
        one.ring = true;
        if (one.start < first.start) first = one;
      }
      at.ring = true;
      first.parent = null;
      rings += 1;
    }
    for (const one of path) done.add(one);
  }
  return rings;
}

function sortChildren(root: Node): void {
  preorder([root], (node) => node.children.sort((a, b) => a.start - b.start || b.end - a.end));
}

export function preorder(roots: readonly Node[], visit: (node: Node) => void): void {
  const stack = [...roots].reverse();
  for (let node = stack.pop(); node; node = stack.pop()) {
    visit(node);
    for (let i = node.children.length - 1; i >= 0; i--) stack.push(node.children[i]!);
  }
}

function markEarly(nodes: Node[]): void {
  for (const node of nodes) if (node.parent?.span) node.early = Math.max(0, node.parent.start - node.start);
}

/** Moves a span that starts before its parent, with all below it, to where it fits: centred, or to the parent's start. */
function correct(roots: Node[]): void {
  preorder(roots, (node) => {
    const parent = node.parent;
    if (parent?.span) {
      node.shift = parent.shift;
      const start = node.start + node.shift;
      if (start < parent.start) {
        const room = parent.end - parent.start - (node.end - node.start);
        node.shift += parent.start + Math.max(0, room / 2) - start;
      }
    }
    node.start += node.shift;
    node.end += node.shift;
  });
}

/** Time in which no child runs. Children are sorted by their start. */
function selfTime(node: Node): number {
  let covered = 0;
  let until = node.start;
  for (const child of node.children.slice().sort((a, b) => a.start - b.start)) {
    const from = Math.max(child.start, until);
    const to = Math.min(child.end, node.end);
    if (to > from) {
      covered += to - from;
      until = to;
    }
  }
  return node.end - node.start - covered;
}

/** From the end backwards: always the child that ended last before. What outlives its parent counts as far as that. */
function criticalPath(root: Node): Segment[] {
  const segments: Segment[] = [];
  const stack: { node: Node; until: number }[] = [{ node: root, until: root.end }];
  for (let step = stack.pop(); step; step = stack.pop()) {
    const { node } = step;
    let until = Math.min(node.end, step.until);
    const within = until;
    for (const child of node.children.filter((one) => one.start < within).sort((a, b) => b.end - a.end)) {
      if (child.start >= until || child.start < node.start) continue;
      const end = Math.min(child.end, until);
      if (end <= node.start) break;
      if (node.span && until > end) segments.push({ node, start: end, end: until });
      stack.push({ node: child, until: end });
      until = child.start;
    }
    if (node.span && until > node.start) segments.push({ node, start: node.start, end: until });
  }
  return segments.sort((a, b) => a.start - b.start);
}

function shares(nodes: Node[]): ServiceShare[] {
  const found = new Map<string, ServiceShare>();
  for (const node of nodes) {
    let share = found.get(node.service);
    if (!share) found.set(node.service, (share = { service: node.service, spans: 0, errors: 0, self: 0 }));
    share.spans += 1;
    share.errors += node.error ? 1 : 0;
    share.self += node.self;
  }
  return [...found.values()].sort((a, b) => b.spans - a.spans);
}

/** A row of the waterfall: a span, or a run of like siblings. */
export interface Row {
  node: Node;
  /** Siblings with the same service and name, this one first; empty for one span. */
  repeats: Node[];
  key: string;
  expandable: boolean;
  expanded: boolean;
}

export interface View {
  /** Keys of closed nodes. */
  closed: ReadonlySet<number>;
  /** Repeats that are shown one by one, by the index of their first node. */
  opened: ReadonlySet<number>;
}

export function rows(trace: Trace, view: View): Row[] {
  const result: Row[] = [];
  const stack: (Node | Row)[] = [];
  const push = (nodes: readonly Node[]) => {
    const made = joinRepeats(nodes, view.opened);
    for (let i = made.length - 1; i >= 0; i--) stack.push(made[i]!);
  };
  push(trace.roots);
  for (let item = stack.pop(); item; item = stack.pop()) {
    if ("repeats" in item) {
      result.push(item);
      continue;
    }
    const expanded = !view.closed.has(item.index);
    result.push({ node: item, repeats: [], key: String(item.index), expandable: item.children.length > 0, expanded });
    if (expanded) push(item.children);
  }
  return result;
}

function joinRepeats(nodes: readonly Node[], opened: ReadonlySet<number>): (Node | Row)[] {
  if (nodes.length < REPEATS_MIN) return [...nodes];
  const result: (Node | Row)[] = [];
  for (let i = 0; i < nodes.length; ) {
    const first = nodes[i]!;
    let end = i;
    while (end < nodes.length) {
      const one = nodes[end]!;
      if (one.children.length > 0 || !one.span || one.name !== first.name || one.service !== first.service) break;
      end += 1;
    }
    if (end - i >= REPEATS_MIN && !opened.has(first.index)) {
      result.push({ node: first, repeats: nodes.slice(i, end), key: `r${first.index}`, expandable: true, expanded: false });
      i = end;
    } else {
      const until = Math.max(end, i + 1);
      for (; i < until; i++) result.push(nodes[i]!);
    }
  }
  return result;
}

/** Whether a text stands in the span's name, service, ids, attributes or events. `text` is in small letters. */
export function matches(node: Node, text: string): boolean {
  const span = node.span;
  if (!span) return node.missingId.includes(text);
  const within = (candidate: string) => candidate.toLowerCase().includes(text);
  return (
    within(span.name) ||
    within(node.service) ||
    span.spanId === text ||
    within(span.statusMessage) ||
    span.attributes.some((one) => within(one.key) || within(one.text)) ||
    span.events.some((event) => within(event.name) || event.attributes.some((one) => within(one.text)))
  );
}
