// The services of one trace and their calls.
import { useMemo } from "preact/hooks";
import { buildMap } from "../map";
import type { MapEdge, MapNode } from "../map";
import { Picture, Table } from "../mapview";
import type { Node, Trace } from "./model";

export function TraceMap({ trace, select }: { trace: Trace; select: (node: Node) => void }) {
  const map = useMemo(
    () =>
      buildMap([
        trace.nodes.flatMap((node) => {
          const span = node.span;
          if (!span) return [];
          const attribute = (key: string) => span.attributes.find((one) => one.key === key)?.text ?? "";
          return [{ id: span.spanId, parent: span.parentId, service: node.service, kind: span.kind, nanos: node.end - node.start, failed: node.error, attribute }];
        }),
      ]),
    [trace],
  );
  /** The longest span of it. */
  const open = (target: MapNode | MapEdge) => () => {
    const [kind = "", name = ""] = "kind" in target ? [target.kind, target.name] : [target.to.slice(0, target.to.indexOf(" ")), target.to.slice(target.to.indexOf(" ") + 1)];
    const wanted = name.split(" · ").pop();
    const isOf = (node: Node) => (kind === "service" ? node.service === name : node.span?.attributes.some((one) => one.text === wanted));
    const longest = trace.nodes.filter((node) => node.span && isOf(node)).reduce<Node | null>((best, node) => (best && best.end - best.start >= node.end - node.start ? best : node), null);
    if (longest) select(longest);
  };
  return (
    <div class="sheet trace-map" tabIndex={0}>
      <p class="note">Click for the longest span of a service or call.{map.leftOut > 0 && ` The ${map.nodes.length} busiest are drawn, ${map.leftOut} are left out.`}</p>
      <Picture map={map} seconds={0} open={open} />
      {map.edges.length > 0 && <Table map={map} seconds={0} open={open} />}
    </div>
  );
}
