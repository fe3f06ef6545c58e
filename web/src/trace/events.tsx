// All events of all spans in the order of their times.
import { useMemo } from "preact/hooks";
import { count, duration, visible } from "../format";
import { Empty, Service } from "../ui";
import type { Node, Trace } from "./model";

const EVENTS_MAX = 1_000;

export function Events({ trace, select }: { trace: Trace; select: (node: Node) => void }) {
  const events = useMemo(
    () =>
      trace.nodes
        .flatMap((node) => (node.span?.events ?? []).map((event) => ({ node, event, at: Number(event.nano - node.span!.startNano) + node.start })))
        .sort((a, b) => a.at - b.at),
    [trace],
  );
  if (events.length === 0) return <Empty title="No span of this trace has events" />;
  return (
    <div class="sheet" tabIndex={0}>
      {events.length > EVENTS_MAX && <p class="note">The first {count(EVENTS_MAX)} of {count(events.length)}.</p>}
      <table class="data">
        <thead>
          <tr>
            <th scope="col"><span>At</span></th>
            <th scope="col"><span>Event</span></th>
            <th scope="col"><span>Span</span></th>
          </tr>
        </thead>
        <tbody>
          {events.slice(0, EVENTS_MAX).map(({ node, event, at }, i) => (
            <tr key={i}>
              <td class="number">+{duration(at)}</td>
              <td>
                <b class={event.name === "exception" ? "bad-text" : ""}>{visible(event.name)}</b>{" "}
                <span>{event.attributes.filter((one) => one.key !== "exception.stacktrace").map((one) => `${one.key}=${visible(one.text.slice(0, 300))}`).join("  ")}</span>
              </td>
              <td>
                <button type="button" class="linkish" onClick={() => select(node)}>
                  <Service service={node.service} /> {node.name}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
