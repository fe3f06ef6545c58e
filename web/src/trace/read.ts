// Reads traces from every JSON that people have: Tempo's, OTLP's (also one request a line), Jaeger's. Nothing is thrown
// away: what is unreadable is an error with its place.
import type { AnyValue, KeyValue } from "../api";
import { valueText } from "../api";

export interface Attribute {
  key: string;
  text: string;
  /** As TraceQL needs to know it: string, int, float, bool; others cannot be asked for. */
  type: "string" | "int" | "float" | "bool" | "other";
  /** As OTLP has it. */
  value: AnyValue;
}

export interface SpanEvent {
  nano: bigint;
  name: string;
  attributes: Attribute[];
}

export interface SpanLink {
  traceId: string;
  spanId: string;
  attributes: Attribute[];
}

export interface Resource {
  service: string;
  attributes: Attribute[];
  schemaUrl: string;
}

export interface Scope {
  name: string;
  version: string;
  attributes: Attribute[];
  schemaUrl: string;
}

export type Kind = "unspecified" | "internal" | "server" | "client" | "producer" | "consumer";

export interface SpanData {
  traceId: string;
  spanId: string;
  /** Empty for a root. */
  parentId: string;
  name: string;
  kind: Kind;
  startNano: bigint;
  endNano: bigint;
  status: "unset" | "ok" | "error";
  statusMessage: string;
  traceState: string;
  attributes: Attribute[];
  events: SpanEvent[];
  links: SpanLink[];
  /** Attributes, events and links that the SDK left out. */
  dropped: number;
  resource: Resource;
  scope: Scope;
  /** The span as it came, and whether that is OTLP's shape or Jaeger's. */
  raw: unknown;
  shape: "otlp" | "jaeger";
}

/** What is wrong with a file or an answer. */
export class ReadError extends Error {}

const KINDS: Kind[] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);
const list = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject) : []);
const string = (value: unknown): string => (typeof value === "string" ? value : "");
const number = (value: unknown): number => (typeof value === "number" ? value : 0);

/** What stands before the trace in a page that was saved with one, see `saved.ts`. */
export const SAVED_OPEN = '<script type="application/json" id="trace">';
export const SAVED_CLOSE = "</script>";

/** A file that somebody opened: JSON of one of the known shapes, one request a line, or a page that was saved with a trace. */
export function readFile(text: string): SpanData[] {
  if (/^\s*<(!doctype html|html)/i.test(text)) return readSaved(text);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (problem) {
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    if (lines.length < 2) throw new ReadError(`not JSON: ${(problem as Error).message}`);
    return lines.flatMap((line, i) => {
      try {
        return readTrace(JSON.parse(line));
      } catch (error) {
        throw new ReadError(`line ${i + 1}: ${(error as Error).message}`);
      }
    });
  }
  return readTrace(parsed);
}

function readSaved(page: string): SpanData[] {
  const from = page.indexOf(SAVED_OPEN);
  const to = page.indexOf(SAVED_CLOSE, from);
  if (from < 0 || to < 0) throw new ReadError("an HTML page without a trace: only pages that Spanreel saved can be opened");
  return readTrace((JSON.parse(page.slice(from + SAVED_OPEN.length, to)) as Json | null)?.["otlp"]);
}

/** Any of the known shapes. */
export function readTrace(json: unknown): SpanData[] {
  if (Array.isArray(json)) return json.flatMap(readTrace);
  if (!isObject(json)) throw new ReadError("neither OTLP nor Jaeger: not an object");
  if (isObject(json["trace"])) return Object.keys(json["trace"]).length === 0 ? [] : readTrace(json["trace"]);
  const resources = json["resourceSpans"] ?? json["batches"] ?? json["resource_spans"];
  if (Array.isArray(resources)) return list(resources).flatMap(readResource);
  if (Array.isArray(json["data"])) return list(json["data"]).flatMap(readJaeger);
  if (Array.isArray(json["spans"]) && isObject(json["processes"])) return readJaeger(json);
  throw new ReadError("neither OTLP (resourceSpans), Tempo (trace, batches) nor Jaeger (data, spans) JSON");
}

function readResource(json: Json, index: number): SpanData[] {
  const attributes = readAttributes(isObject(json["resource"]) ? json["resource"]["attributes"] : undefined);
  const resource: Resource = { service: attributes.find((one) => one.key === "service.name")?.text ?? "unknown service", attributes, schemaUrl: string(json["schemaUrl"]) };
  return list(json["scopeSpans"] ?? json["scope_spans"] ?? json["instrumentationLibrarySpans"]).flatMap((group, at) => {
    const own = isObject(group["scope"]) ? group["scope"] : {};
    const scope: Scope = { name: string(own["name"]), version: string(own["version"]), attributes: readAttributes(own["attributes"]), schemaUrl: string(group["schemaUrl"]) };
    return list(group["spans"]).map((span, i) => readSpan(span, resource, scope, `resourceSpans[${index}].scopeSpans[${at}].spans[${i}]`));
  });
}

function readSpan(json: Json, resource: Resource, scope: Scope, path: string): SpanData {
  const status = isObject(json["status"]) ? json["status"] : {};
  const code = status["code"];
  const kind = json["kind"];
  return {
    traceId: readId(json["traceId"] ?? json["trace_id"], 16, `${path}.traceId`),
    spanId: readId(json["spanId"] ?? json["span_id"], 8, `${path}.spanId`),
    parentId: readId(json["parentSpanId"] ?? json["parent_span_id"], 8, `${path}.parentSpanId`),
    name: string(json["name"]),
    kind: typeof kind === "number" ? (KINDS[kind] ?? "unspecified") : (KINDS.find((one) => `SPAN_KIND_${one.toUpperCase()}` === kind) ?? "unspecified"),
    startNano: readNano(json["startTimeUnixNano"], `${path}.startTimeUnixNano`),
    endNano: readNano(json["endTimeUnixNano"], `${path}.endTimeUnixNano`),
    status: code === 2 || code === "STATUS_CODE_ERROR" ? "error" : code === 1 || code === "STATUS_CODE_OK" ? "ok" : "unset",
    statusMessage: string(status["message"]),
    traceState: string(json["traceState"]),
    attributes: readAttributes(json["attributes"]),
    events: list(json["events"]).map((event, i) => ({
      nano: readNano(event["timeUnixNano"], `${path}.events[${i}].timeUnixNano`),
      name: string(event["name"]),
      attributes: readAttributes(event["attributes"]),
    })),
    links: list(json["links"]).map((link, i) => ({
      traceId: readId(link["traceId"], 16, `${path}.links[${i}].traceId`),
      spanId: readId(link["spanId"], 8, `${path}.links[${i}].spanId`),
      attributes: readAttributes(link["attributes"]),
    })),
    dropped: number(json["droppedAttributesCount"]) + number(json["droppedEventsCount"]) + number(json["droppedLinksCount"]),
    resource,
    scope,
    raw: json,
    shape: "otlp",
  };
}

/** Ids are hexadecimal in OTLP's JSON, base64 in protobuf's own, which Tempo writes. Absent or zero: empty. */
function readId(value: unknown, length: number, path: string): string {
  if (value === undefined || value === null || value === "") return "";
  if (typeof value !== "string") throw new ReadError(`${path}: an id is text`);
  let hex = value.toLowerCase();
  if (!(hex.length === length * 2 && /^[0-9a-f]+$/.test(hex))) {
    try {
      hex = Array.from(atob(value), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
    } catch {
      throw new ReadError(`${path}: ${JSON.stringify(value.slice(0, 40))} is neither hexadecimal nor base64`);
    }
  }
  return /^0*$/.test(hex) ? "" : hex;
}

function readNano(value: unknown, path: string): bigint {
  if (value === undefined || value === null) return 0n;
  if (typeof value === "string" && /^\d{1,20}$/.test(value)) return BigInt(value);
  if (typeof value === "number" && Number.isFinite(value) && value >= 0) return BigInt(Math.round(value));
  throw new ReadError(`${path}: not a time in nanoseconds`);
}

function readAttributes(value: unknown): Attribute[] {
  return list(value).map((pair) => readAttribute(pair as unknown as KeyValue));
}

function readAttribute(pair: KeyValue): Attribute {
  const value: AnyValue = pair.value ?? {};
  const type =
    value.stringValue !== undefined ? "string"
    : value.intValue !== undefined ? "int"
    : value.doubleValue !== undefined ? "float"
    : value.boolValue !== undefined ? "bool"
    : "other";
  return { key: String(pair.key), text: valueText(value), type, value };
}

/** Jaeger's JSON: times in microseconds, parents as references, services as processes. */
function readJaeger(json: Json): SpanData[] {
  const processes = isObject(json["processes"]) ? json["processes"] : {};
  const resources = new Map<string, Resource>();
  for (const [id, process] of Object.entries(processes)) {
    if (!isObject(process)) continue;
    const service = string(process["serviceName"]);
    const name: Attribute = { key: "service.name", text: service, type: "string", value: { stringValue: service } };
    resources.set(id, { service, attributes: [name, ...readTags(process["tags"])], schemaUrl: "" });
  }
  return list(json["spans"]).map((span, i) => {
    const path = `spans[${i}]`;
    const tags = readTags(span["tags"]);
    const tag = (key: string) => tags.find((one) => one.key === key)?.text ?? "";
    const references = list(span["references"]);
    const traceId = jaegerId(span["traceID"], 32, `${path}.traceID`);
    // What refers to another trace is a link.
    const within = references.filter((one) => one["traceID"] === undefined || jaegerId(one["traceID"], 32, `${path}.references`) === traceId);
    const parent = within.find((one) => one["refType"] === "CHILD_OF") ?? within.find((one) => one["refType"] === "FOLLOWS_FROM");
    const start = BigInt(Math.round(number(span["startTime"]))) * 1000n;
    return {
      traceId,
      spanId: jaegerId(span["spanID"], 16, `${path}.spanID`),
      parentId: parent ? jaegerId(parent["spanID"], 16, `${path}.references`) : span["parentSpanID"] ? jaegerId(span["parentSpanID"], 16, `${path}.parentSpanID`) : "",
      name: string(span["operationName"]),
      kind: KINDS.find((kind) => kind === tag("span.kind")) ?? "unspecified",
      startNano: start,
      endNano: start + BigInt(Math.round(number(span["duration"]))) * 1000n,
      status: tag("error") === "true" || tag("otel.status_code") === "ERROR" ? ("error" as const) : tag("otel.status_code") === "OK" ? ("ok" as const) : ("unset" as const),
      statusMessage: tag("otel.status_description"),
      traceState: tag("w3c.tracestate"),
      attributes: tags,
      events: list(span["logs"]).map((log) => {
        const fields = readTags(log["fields"]);
        const name = fields.find((field) => field.key === "event")?.text ?? fields.find((field) => field.key === "message")?.text ?? "log";
        return { nano: BigInt(Math.round(number(log["timestamp"]))) * 1000n, name, attributes: fields };
      }),
      links: references.filter((one) => one !== parent).map((one) => ({
        traceId: jaegerId(one["traceID"], 32, `${path}.references`),
        spanId: jaegerId(one["spanID"], 16, `${path}.references`),
        attributes: [],
      })),
      dropped: 0,
      resource: resources.get(string(span["processID"])) ?? { service: "unknown service", attributes: [], schemaUrl: "" },
      scope: { name: tag("otel.scope.name") || tag("otel.library.name"), version: tag("otel.scope.version"), attributes: [], schemaUrl: "" },
      raw: span,
      shape: "jaeger" as const,
    };
  });
}

function jaegerId(value: unknown, digits: number, path: string): string {
  if (typeof value !== "string" || !/^[0-9a-f]{1,32}$/i.test(value)) throw new ReadError(`${path}: not a hexadecimal id`);
  return value.toLowerCase().padStart(digits, "0");
}

function readTags(value: unknown): Attribute[] {
  return list(value).map((tag) => {
    const given = tag["value"];
    const kind = string(tag["type"]);
    const type =
      typeof given === "boolean" || kind === "bool" ? "bool"
      : kind.startsWith("int") ? "int"
      : kind.startsWith("float") || typeof given === "number" ? "float"
      : typeof given === "string" ? "string"
      : "other";
    const text = typeof given === "string" ? given : (JSON.stringify(given) ?? "");
    return { key: string(tag["key"]), text, type, value: tagValue(type, text) };
  });
}

function tagValue(type: Attribute["type"], text: string): AnyValue {
  if (type === "int") return { intValue: text };
  if (type === "float") return { doubleValue: Number(text) };
  return type === "bool" ? { boolValue: text === "true" } : { stringValue: text };
}

/** The traces of a file, the largest first. */
export function byTrace(spans: SpanData[]): [string, SpanData[]][] {
  const traces = new Map<string, SpanData[]>();
  for (const span of spans) {
    const found = traces.get(span.traceId);
    if (found) found.push(span);
    else traces.set(span.traceId, [span]);
  }
  return [...traces].sort((a, b) => b[1].length - a[1].length);
}
