// Out again: OTLP's JSON, as any OTLP/HTTP endpoint takes it.
import type { Attribute, Resource, Scope, SpanData } from "./read";

type Json = Record<string, unknown>;
const IDS = new Map([["traceId", 16], ["spanId", 8], ["parentSpanId", 8]]);
const KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const CODES = ["UNSET", "OK", "ERROR"];

/** Spans as one request. What came as OTLP keeps every field; ids become hexadecimal and enums numbers, as OTLP wants. */
export function toOtlp(spans: readonly SpanData[]): { resourceSpans: Json[] } {
  const resources = new Map<Resource, Map<Scope, SpanData[]>>();
  for (const span of spans) {
    let scopes = resources.get(span.resource);
    if (!scopes) resources.set(span.resource, (scopes = new Map()));
    const list = scopes.get(span.scope);
    if (list) list.push(span);
    else scopes.set(span.scope, [span]);
  }
  return {
    resourceSpans: [...resources].map(([resource, scopes]) => ({
      resource: { attributes: pairs(resource.attributes) },
      scopeSpans: [...scopes].map(([scope, list]) => ({
        scope: { ...given("name", scope.name), ...given("version", scope.version), ...(scope.attributes.length > 0 ? { attributes: pairs(scope.attributes) } : {}) },
        spans: list.map((span) => (span.shape === "otlp" ? convert(span.raw) : written(span))),
        ...given("schemaUrl", scope.schemaUrl),
      })),
      ...given("schemaUrl", resource.schemaUrl),
    })),
  };
}

const given = (key: string, text: string): Json => (text === "" ? {} : { [key]: text });
const pairs = (attributes: readonly Attribute[]): Json[] => attributes.map(({ key, value }) => ({ key, value }));

/** A span that came in another shape. */
function written(span: SpanData): Json {
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    ...given("parentSpanId", span.parentId),
    ...given("traceState", span.traceState),
    name: span.name,
    kind: KINDS.indexOf(span.kind.toUpperCase()),
    startTimeUnixNano: String(span.startNano),
    endTimeUnixNano: String(span.endNano),
    attributes: pairs(span.attributes),
    events: span.events.map((event) => ({ timeUnixNano: String(event.nano), name: event.name, attributes: pairs(event.attributes) })),
    links: span.links.map((link) => ({ traceId: link.traceId, spanId: link.spanId, attributes: pairs(link.attributes) })),
    status: { code: CODES.indexOf(span.status.toUpperCase()), ...given("message", span.statusMessage) },
  };
}

function convert(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(convert);
  if (typeof value !== "object" || value === null) return value;
  const result: Json = {};
  for (const [key, inner] of Object.entries(value)) {
    const bytes = IDS.get(key);
    if (key === "attributes") result[key] = inner;
    else if (bytes !== undefined && typeof inner === "string") result[key] = hex(inner, bytes);
    else if (key === "kind" && typeof inner === "string") result[key] = Math.max(0, KINDS.indexOf(inner.replace("SPAN_KIND_", "")));
    else if (key === "code" && typeof inner === "string") result[key] = Math.max(0, CODES.indexOf(inner.replace("STATUS_CODE_", "")));
    else result[key] = convert(inner);
  }
  return result;
}

function hex(id: string, bytes: number): string {
  if (id.length === bytes * 2 && /^[0-9a-f]+$/i.test(id)) return id.toLowerCase();
  try {
    return Array.from(atob(id), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
  } catch {
    return id;
  }
}
