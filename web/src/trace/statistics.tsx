// The trace's spans in groups of any attribute.
import { useMemo } from "preact/hooks";
import { count, duration, percent } from "../format";
import { change, parameter } from "../router";
import { Service } from "../ui";
import type { Node, Trace } from "./model";

interface Group {
  key: string;
  spans: number;
  errors: number;
  total: number;
  self: number;
  max: number;
  durations: number[];
}

const COLUMNS = [
  ["spans", "Spans"],
  ["errors", "Failed"],
  ["total", "Total"],
  ["self", "Self"],
  ["mean", "Mean"],
  ["p95", "p95"],
  ["max", "Longest"],
] as const;
type Column = (typeof COLUMNS)[number][0];

/** Groups beyond this are not listed. */
const GROUPS_MAX = 500;

function keyOf(node: Node, by: string): string {
  const span = node.span!;
  if (by === "service") return node.service;
  if (by === "operation") return `${node.service} · ${node.name}`;
  if (by === "kind") return span.kind;
  if (by === "scope") return span.scope.name || "none";
  return span.attributes.find((one) => one.key === by)?.text ?? span.resource.attributes.find((one) => one.key === by)?.text ?? "none";
}

const value = (group: Group, column: Column): number =>
  column === "mean" ? group.total / group.spans : column === "p95" ? (group.durations[Math.min(group.durations.length - 1, Math.floor(group.durations.length * 0.95))] ?? 0) : group[column];

export function Statistics({ trace }: { trace: Trace }) {
  const by = parameter("by") || "operation";
  const then = parameter("then");
  const sort = COLUMNS.find(([column]) => column === parameter("sort"))?.[0] ?? "self";
  const setSort = (column: Column) => change({ sort: column === "self" ? null : column }, "replace");
  const attributes = useMemo(() => {
    const keys = new Set<string>();
    for (const node of trace.nodes) {
      for (const one of node.span?.attributes ?? []) keys.add(one.key);
      for (const one of node.span?.resource.attributes ?? []) keys.add(one.key);
    }
    return [...keys].sort();
  }, [trace]);
  const groups = useMemo(() => {
    const found = new Map<string, Group>();
    for (const node of trace.nodes) {
      if (!node.span) continue;
      const key = then === "" ? keyOf(node, by) : `${keyOf(node, by)} · ${keyOf(node, then)}`;
      let group = found.get(key);
      if (!group) found.set(key, (group = { key, spans: 0, errors: 0, total: 0, self: 0, max: 0, durations: [] }));
      const length = node.end - node.start;
      group.spans += 1;
      group.errors += node.error ? 1 : 0;
      group.total += length;
      group.self += node.self;
      group.max = Math.max(group.max, length);
      group.durations.push(length);
    }
    for (const group of found.values()) group.durations.sort((a, b) => a - b);
    return [...found.values()];
  }, [trace, by, then]);
  const sorted = useMemo(() => [...groups].sort((a, b) => value(b, sort) - value(a, sort)), [groups, sort]);
  const selfTotal = Math.max(1, groups.reduce((sum, group) => sum + group.self, 0));
  return (
    <div>
      <div class="flame-info">
        <label>
          Group by{" "}
          <select value={by} onChange={(event) => change({ by: event.currentTarget.value }, "replace")}>
            {["operation", "service", "kind", "scope"].map((one) => <option key={one} value={one}>{one}</option>)}
            {attributes.map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
        <label>
          and by{" "}
          <select value={then} onChange={(event) => change({ then: event.currentTarget.value || null }, "replace")}>
            <option value="">nothing more</option>
            {["operation", "service", "kind", "scope", ...attributes].filter((one) => one !== by).map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
        <span class="note">{count(groups.length)} groups{groups.length > GROUPS_MAX && `, ${GROUPS_MAX} shown`}</span>
      </div>
      <div class="sheet" tabIndex={0}>
        <table class="data">
          <thead>
            <tr>
              <th scope="col"><span>{then === "" ? by : `${by} · ${then}`}</span></th>
              {COLUMNS.map(([column, title]) => (
                <th key={column} scope="col" class="number" aria-sort={sort === column ? "descending" : undefined}>
                  <button type="button" onClick={() => setSort(column)}>{title}{sort === column ? " ↓" : ""}</button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {sorted.slice(0, GROUPS_MAX).map((group) => (
              <tr key={group.key}>
                <td>{by === "service" && then === "" ? <Service service={group.key} /> : group.key}</td>
                {COLUMNS.map(([column]) => (
                  <td key={column} class={column === "self" ? "number heat" : "number"}>
                    {column === "self" && <i style={{ width: `${(group.self / selfTotal) * 90}%` }} />}
                    {column === "spans" ? count(group.spans) : column === "errors" ? (group.errors ? <b class="bad-text">{count(group.errors)}</b> : "") : duration(value(group, column))}
                    {column === "self" && <small> {percent(group.self / selfTotal)}</small>}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}
