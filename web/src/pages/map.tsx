import { useMemo } from "preact/hooks";
import { ofQuery, search } from "../api";
import type { SearchAnswer } from "../api";
import { count } from "../format";
import { useAnswer, useTitle } from "../hooks";
import { MAP_FIELDS, mapOfSearch } from "../map";
import type { MapEdge, MapNode } from "../map";
import { Picture, Table } from "../mapview";
import { QueryBox } from "../querybox";
import { keepRange, range } from "../range";
import { NothingThen } from "../rangepicker";
import { change, href, parameter } from "../router";
import { condition, takesMetrics } from "../traceql";
import { Failure, Waiting } from "../ui";

/** The newest traces that the map is made of, and spans of each. */
const TRACES = 500;
const SPANS = 100;
/** Inner spans call nobody. */
const EVERYTHING = "{ kind != internal }";

export default function MapPage() {
  useTitle("Map");
  const { start, end } = range.value;
  const query = parameter("q") || EVERYTHING;
  const asked = takesMetrics(query) ? `${query} | select(${MAP_FIELDS})` : query;
  const answer = useAnswer(`${asked} ${start} ${end}`, (signal) => ofQuery(query, { start, end }, signal, search(asked, { start, end }, TRACES, SPANS, signal)));
  const map = useMemo(() => (answer.data ? mapOfSearch(answer.data) : null), [answer.data]);
  const seconds = answer.data ? covered(answer.data, start, end) : 0;
  const open = (target: MapNode | MapEdge) => href("traces", { ...keepRange(), q: "kind" in target ? `{ ${nodeCondition(target)} }` : calls(target) });
  return (
    <div class="explain">
      <QueryBox query={query} run={(next) => change({ q: next.trim() === EVERYTHING ? null : next })} invalid={answer.error?.status === 400} />
      {answer.error && <Failure error={answer.error} what={answer.error.status === 400 ? "The query is not valid" : "No map"} retry={answer.reload} />}
      {!map && !answer.error && <Waiting />}
      {map && map.nodes.length === 0 && <NothingThen title="No traces in this time" />}
      {map && map.nodes.length > 0 && (
        <>
          <p class="note">
            From the newest {count(map.traces)} traces of this time ({count(map.spans)} spans{map.traces >= TRACES ? "; there are more" : ""}). Databases, queues and peers are what clients name.{" "}
            {map.leftOut > 0 && `The ${count(map.nodes.length)} busiest are drawn, ${count(map.leftOut)} are left out. `}Click for the traces.
          </p>
          <div class="map-frame" tabIndex={0}>
            <Picture map={map} seconds={seconds} open={open} />
          </div>
          <Table map={map} seconds={seconds} open={open} />
        </>
      )}
    </div>
  );
}

/** Seconds that the found traces are of: the whole range, or from the oldest of the newest ones to its end. */
function covered(answer: SearchAnswer, start: number, end: number): number {
  const traces = answer.traces ?? [];
  if (traces.length < TRACES) return end - start;
  const oldest = traces.reduce((min, trace) => Math.min(min, Number(BigInt(trace.startTimeUnixNano ?? 0) / 1_000_000n) / 1000), Infinity);
  return Math.max(1, end - oldest);
}

function nodeCondition({ kind, name }: Pick<MapNode, "kind" | "name">): string {
  if (kind === "service") return condition("resource.service.name", name);
  if (kind === "queue") return condition("span.messaging.destination.name", name);
  const address = kind === "database" ? name.split(" · ")[1] : name;
  return address === undefined ? condition("span.db.system.name", name) : condition("span.server.address", address);
}

/** Traces in which one called the other: between services by their spans' order, else what the caller names. */
function calls(edge: MapEdge): string {
  const node = (id: string) => ({ kind: id.slice(0, id.indexOf(" ")) as MapNode["kind"], name: id.slice(id.indexOf(" ") + 1) });
  const [from, to] = [node(edge.from), node(edge.to)];
  if (from.kind !== "service") return `{ ${nodeCondition(to)} && ${nodeCondition(from)} }`;
  return to.kind === "service" ? `{ ${nodeCondition(from)} } > { ${nodeCondition(to)} }` : `{ ${nodeCondition(from)} && ${nodeCondition(to)} }`;
}
