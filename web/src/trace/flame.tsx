// Calls of the same name on the same path are one block, as wide as their self time with all below.
import { useMemo, useState } from "preact/hooks";
import { colour } from "../colour";
import { count, duration, percent } from "../format";
import { useSize } from "../hooks";
import { change, parameter } from "../router";
import type { Node, Trace } from "./model";

interface Block {
  service: string;
  name: string;
  depth: number;
  spans: number;
  errors: number;
  self: number;
  /** Self time of this and everything below. */
  total: number;
  children: Map<string, Block>;
  first: Node;
}

const ROW = 22;
/** Blocks narrower than this are not drawn. */
const PIXELS_MIN = 1;
const DEPTH_MAX = 400;

function blocks(trace: Trace): Block {
  const root: Block = { service: "", name: "", depth: -1, spans: 0, errors: 0, self: 0, total: 0, children: new Map(), first: trace.nodes[0]! };
  const stack: [Node, Block][] = trace.roots.map((node) => [node, root]);
  const all: [Block, Block][] = [];
  for (let item = stack.pop(); item; item = stack.pop()) {
    const [node, parent] = item;
    const key = `${node.service}\u0000${node.name}`;
    let block = parent.children.get(key);
    if (!block) {
      block = { service: node.service, name: node.span ? node.name : "(missing)", depth: parent.depth + 1, spans: 0, errors: 0, self: 0, total: 0, children: new Map(), first: node };
      parent.children.set(key, block);
      all.push([block, parent]);
    }
    block.spans += 1;
    block.errors += node.error ? 1 : 0;
    block.self += node.self;
    for (const child of node.children) stack.push([child, block]);
  }
  for (let i = all.length - 1; i >= 0; i--) {
    const [block, parent] = all[i]!;
    block.total += block.self;
    parent.total += block.total;
  }
  return root;
}

/** The block whose first span has this id. */
function blockOf(root: Block, spanId: string): Block | null {
  const stack = [...root.children.values()];
  for (let block = stack.pop(); block; block = stack.pop()) {
    if (block.first.span?.spanId === spanId) return block;
    stack.push(...block.children.values());
  }
  return null;
}

interface Placed {
  block: Block;
  left: number;
  width: number;
  row: number;
}

function layout(top: Block, width: number): Placed[] {
  const placed: Placed[] = [];
  const scale = width / Math.max(1, top.total);
  const stack: [Block, number, number][] = [[top, 0, 0]];
  for (let item = stack.pop(); item; item = stack.pop()) {
    const [block, left, row] = item;
    const own = block.total * scale;
    if (own < PIXELS_MIN || row > DEPTH_MAX) continue;
    const isRoot = block.depth < 0;
    if (!isRoot) placed.push({ block, left, width: own, row });
    let at = left;
    for (const child of [...block.children.values()].sort((a, b) => b.total - a.total)) {
      stack.push([child, at, isRoot ? row : row + 1]);
      at += child.total * scale;
    }
  }
  return placed;
}

export function Flame({ trace, select }: { trace: Trace; select: (node: Node) => void }) {
  const [attach, { width }] = useSize<HTMLDivElement>();
  const root = useMemo(() => blocks(trace), [trace]);
  const wanted = parameter("block");
  const top = useMemo(() => (wanted === "" ? null : blockOf(root, wanted)), [root, wanted]);
  const setTop = (block: Block | null) => change({ block: block?.first.span?.spanId }, "replace");
  const [hover, setHover] = useState<Block | null>(null);
  const shown = top ?? root;
  const placed = useMemo(() => (width > 0 ? layout(shown, width) : []), [shown, width]);
  const rows = placed.reduce((max, one) => Math.max(max, one.row + 1), 0);
  const about = hover ?? top;
  return (
    <div>
      <div class="flame-info">
        {about ? (
          <>
            <b class="clip">{about.service} · {about.name}</b>
            <span>{count(about.spans)} {about.spans === 1 ? "span" : "spans"}</span>
            <span>self {duration(about.self)}</span>
            <span>with all below {duration(about.total)} ({percent(about.total / Math.max(1, root.total))})</span>
            {about.errors > 0 && <span class="bad-text">{count(about.errors)} failed</span>}
          </>
        ) : (
          <span class="note">Width is self time with all below. Click to look closer.</span>
        )}
        {top && (
          <>
            <button type="button" onClick={() => setTop(null)}>All</button>
            <button type="button" onClick={() => select(top.first)}>First of these spans</button>
          </>
        )}
      </div>
      <div class="flame" ref={attach}>
        <div class="rows" style={{ height: `${rows * ROW}px` }}>
          {placed.map(({ block, left, width: own, row }) => (
            <button
              key={`${row} ${left}`}
              type="button"
              style={{ left: `${left}px`, width: `${Math.max(1, own - 0.5)}px`, top: `${row * ROW}px`, background: `color-mix(in srgb, ${colour(block.service)} 68%, var(--flame-mix))` }}
              onClick={() => setTop(block === top ? null : block)}
              onPointerEnter={() => setHover(block)}
              onPointerLeave={() => setHover(null)}
              onFocus={() => setHover(block)}
              aria-label={`${block.service} ${block.name}, ${count(block.spans)} spans, ${duration(block.total)}`}
            >
              {own > 30 && <span class="clip">{block.name}</span>}
            </button>
          ))}
        </div>
      </div>
    </div>
  );
}
