// Out again: OTLP's JSON, as any OTLP/HTTP endpoint takes it.

type Json = Record<string, unknown>;
const IDS = new Map([["traceId", 16], ["spanId", 8], ["parentSpanId", 8]]);
const KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const CODES = ["UNSET", "OK", "ERROR"];

/** What the query API answers, with ids in hexadecimal and enums as numbers, which OTLP wants. */
export function toOtlp(answer: unknown): unknown {
  const inner = (answer as { trace?: unknown }).trace ?? answer;
  const resources = (inner as Json)["resourceSpans"] ?? (inner as Json)["batches"];
  return Array.isArray(resources) ? { resourceSpans: resources.map(convert) } : inner;
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

export function download(name: string, text: string, type: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
