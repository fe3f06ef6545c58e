// Out as Jaeger's UI takes it: times in microseconds, services as processes, everything else as tags.
import type { Attribute, Resource, SpanData } from "./read";

interface Tag {
  key: string;
  type: "string" | "bool" | "int64" | "float64";
  value: string | number | boolean;
}

const micros = (nano: bigint): number => Number(nano / 1000n);
const text = (key: string, value: string): Tag[] => (value === "" ? [] : [{ key, type: "string", value }]);

function tag({ key, text: written, type }: Attribute): Tag {
  if (type === "bool") return { key, type: "bool", value: written === "true" };
  // What a double cannot hold stays as it is written.
  if (type === "int" && Number.isSafeInteger(Number(written))) return { key, type: "int64", value: Number(written) };
  if (type === "float" && Number.isFinite(Number(written))) return { key, type: "float64", value: Number(written) };
  return { key, type: "string", value: written };
}

/** What a span has besides its attributes; readers take the first tag of a name. A tag that came with the same value is not written twice. */
function tags(span: SpanData): Tag[] {
  const own: Tag[] = [
    ...(span.kind === "unspecified" ? [] : text("span.kind", span.kind)),
    ...(span.status === "unset" ? [] : text("otel.status_code", span.status.toUpperCase())),
    ...(span.status === "error" ? [{ key: "error", type: "bool" as const, value: true }] : []),
    ...text("otel.status_description", span.statusMessage),
    ...text("otel.scope.name", span.scope.name),
    ...text("otel.scope.version", span.scope.version),
    ...text("w3c.tracestate", span.traceState),
  ];
  const isSaid = (one: Tag) => own.some(({ key, value }) => key === one.key && value === one.value);
  return [...own, ...span.attributes.map(tag).filter((one) => !isSaid(one))];
}

export function toJaeger(id: string, spans: readonly SpanData[]): unknown {
  const processes = new Map<Resource, string>();
  for (const span of spans) if (!processes.has(span.resource)) processes.set(span.resource, `p${processes.size + 1}`);
  return {
    data: [
      {
        traceID: id,
        spans: spans.map((span) => ({
          traceID: span.traceId,
          spanID: span.spanId,
          operationName: span.name,
          references: [
            ...(span.parentId === "" ? [] : [{ refType: "CHILD_OF", traceID: span.traceId, spanID: span.parentId }]),
            ...span.links.map((link) => ({ refType: "FOLLOWS_FROM", traceID: link.traceId, spanID: link.spanId })),
          ],
          startTime: micros(span.startNano),
          // Jaeger has no negative durations.
          duration: Math.max(0, micros(span.endNano) - micros(span.startNano)),
          tags: tags(span),
          logs: span.events.map((event) => ({
            timestamp: micros(event.nano),
            fields: [...(event.attributes.some(({ key }) => key === "event") ? [] : text("event", event.name)), ...event.attributes.map(tag)],
          })),
          processID: processes.get(span.resource),
          warnings: null,
        })),
        processes: Object.fromEntries(
          [...processes].map(([resource, process]) => [process, { serviceName: resource.service, tags: resource.attributes.filter(({ key }) => key !== "service.name").map(tag) }]),
        ),
        warnings: null,
      },
    ],
  };
}
