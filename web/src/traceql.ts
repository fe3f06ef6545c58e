// Just enough of TraceQL to edit a query by clicks and to complete what is typed. The server alone decides what is valid.

/** A string literal. */
export const quote = (text: string): string =>
  `"${text.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t")}"`;

/** Intrinsics of which the values are words. */
const WORDS = new Set(["status", "kind", "span:status", "span:kind"]);

/** `scope.key`, the key in quotes if it needs them. */
export function attribute(scope: string, key: string): string {
  return `${scope}.${/^[^\s"{}()=!<>~&|,^%+*\\]+$/.test(key) ? key : quote(key)}`;
}

export function literal(field: string, value: string, type: string): string {
  if (WORDS.has(field) || type === "keyword" || type === "int" || type === "float" || type === "bool" || type === "duration") return value;
  return quote(value);
}

export const condition = (field: string, value: string, type = "string", operator = "="): string =>
  `${field} ${operator} ${literal(field, value, type)}`;

interface Filter {
  /** What stands before, between and behind the braces of the first filter. */
  before: string;
  inside: string;
  after: string;
}

/** Calls `visit` for each character that is not in a string or comment. */
function scan(text: string, visit: (index: number, depth: number) => boolean | void): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"' || c === "`") {
      for (i++; i < text.length && text[i] !== c; i++) if (c === '"' && text[i] === "\\") i++;
      continue;
    }
    if (c === "(" || c === "{") depth++;
    if (c === ")" || c === "}") depth--;
    if (visit(i, depth) === false) return;
  }
}

function firstFilter(query: string): Filter | null {
  let open = -1;
  let close = -1;
  scan(query, (i) => {
    if (query[i] === "{" && open < 0) open = i;
    if (query[i] === "}" && open >= 0) {
      close = i;
      return false;
    }
    return;
  });
  if (close < 0) return null;
  return { before: query.slice(0, open), inside: query.slice(open + 1, close).trim(), after: query.slice(close + 1) };
}

/** The parts between `separator` outside of brackets. */
function split(text: string, separator: string): string[] {
  const parts: string[] = [];
  let from = 0;
  scan(text, (i, depth) => {
    if (depth === 0 && text.startsWith(separator, i) && i >= from) {
      parts.push(text.slice(from, i).trim());
      from = i + separator.length;
    }
  });
  parts.push(text.slice(from).trim());
  return parts;
}

const write = ({ before, after }: Filter, parts: string[]): string => `${before}{ ${parts.join(" && ")}${parts.length ? " " : ""}}${after}`;

/** The conditions of the first filter that all must hold. */
export function conditions(query: string): string[] {
  const filter = firstFilter(query);
  if (!filter || filter.inside === "") return [];
  if (split(filter.inside, "||").length > 1) return [`(${filter.inside})`];
  return split(filter.inside, "&&").filter((part) => part !== "" && part !== "true");
}

const same = (a: string, b: string): boolean => a.replace(/\s+/g, "") === b.replace(/\s+/g, "");

export const holds = (query: string, wanted: string): boolean => conditions(query).some((part) => same(part, wanted));

export function withCondition(query: string, wanted: string): string {
  const filter = firstFilter(query);
  if (!filter) return `{ ${wanted} }`;
  const parts = conditions(query);
  return parts.some((part) => same(part, wanted)) ? query : write(filter, [...parts, wanted]);
}

export function withoutCondition(query: string, unwanted: string): string {
  const filter = firstFilter(query);
  return filter ? write(filter, conditions(query).filter((part) => !same(part, unwanted))) : query;
}

/** Removes conditions on `field`, whatever they say. */
export function withoutField(query: string, field: string): string {
  const filter = firstFilter(query);
  if (!filter) return query;
  return write(filter, conditions(query).filter((part) => !part.replace(/\s+/g, "").match(new RegExp(`^${escaped(field)}[=!<>]`))));
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** Whether metrics functions may follow: filters and structure yes, aggregates and `select` no. */
export function takesMetrics(query: string): boolean {
  return split(query, "|").filter((part) => part !== "").length <= 1 || split(query, "||").length > 1;
}

/** What a text becomes by a key, and where the caret is then. */
export interface Typed {
  text: string;
  caret: number;
}

/** A filter is closed as soon as it is opened; who types the whole of it all the same types over what stands there already. */
export function afterKey(text: string, caret: number, key: string): Typed {
  if (text === "{") return { text: "{  }", caret: 2 };
  if (key === " " && caret === 3 && /^\{ {3}\}$/.test(text)) return { text: "{  }", caret: 2 };
  if (key === "}" && /^\s*\}\s*$/.test(text.slice(caret))) {
    let excess = false;
    scan(text, (_, depth) => (depth < 0 ? ((excess = true), false) : undefined));
    if (excess) return { text: text.slice(0, caret), caret };
  }
  return { text, caret };
}

/** What may be completed at the caret. */
export interface Completion {
  kind: "key" | "value" | "none";
  /** The field whose value is wanted. */
  field: string;
  typed: string;
  from: number;
  to: number;
}

/** A field with an operator behind it. */
const FIELD_OPERATOR = '([\\w.:/-]+(?:\\."(?:[^"\\\\]|\\\\.)*")?)\\s*(?:=~|!~|!=|>=|<=|=|>|<)\\s*';

const NONE: Completion = { kind: "none", field: "", typed: "", from: 0, to: 0 };

export function completionAt(query: string, caret: number): Completion {
  const before = query.slice(0, caret);
  // Completion is for the inside of a filter.
  let depth = 0;
  let quoteAt = -1;
  for (let i = 0; i < before.length; i++) {
    const c = before[i];
    if (c === '"') {
      const start = i;
      for (i++; i < before.length && before[i] !== '"'; i++) if (before[i] === "\\") i++;
      if (i >= before.length) quoteAt = start;
    } else if (c === "{") depth++;
    else if (c === "}") depth--;
  }
  if (depth <= 0) return NONE;
  const rest = query.slice(caret);
  if (quoteAt >= 0) {
    const asked = new RegExp(`${FIELD_OPERATOR}$`).exec(before.slice(0, quoteAt));
    if (!asked) return NONE;
    const tail = /^(?:[^"\\}]|\\.)*"?/.exec(rest)?.[0] ?? "";
    return { kind: "value", field: asked[1]!, typed: before.slice(quoteAt + 1), from: quoteAt, to: caret + (tail.endsWith('"') ? tail.length : 0) };
  }
  const asked = new RegExp(`${FIELD_OPERATOR}([^"\\s&|)}=~!<>]*)$`).exec(before);
  if (asked) {
    const typed = asked[2] ?? "";
    const tail = /^[^\s&|)}]*/.exec(rest)?.[0] ?? "";
    return { kind: "value", field: asked[1]!, typed, from: caret - typed.length, to: caret + tail.length };
  }
  const word = /[\w.:/-]*$/.exec(before)?.[0] ?? "";
  const lead = before.slice(0, before.length - word.length).trimEnd();
  if (word === "" && !/[{(&|!]$/.test(lead)) return NONE;
  if (!/[{(&|!,]$/.test(lead)) return NONE;
  const tail = /^[\w.:/-]*/.exec(rest)?.[0] ?? "";
  return { kind: "key", field: "", typed: word, from: caret - word.length, to: caret + tail.length };
}

/** The trace id that a text is, in lower case; none if it is something else. */
export const traceIdOf = (text: string): string | undefined => /^(?:0x)?([0-9a-f-]{1,36})$/i.exec(text)?.[1]?.replace(/-/g, "").toLowerCase();
