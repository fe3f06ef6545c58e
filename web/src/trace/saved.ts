// A trace as one page that needs nothing else: scripts, styles and data stand in it, its policy allows only these, and it
// opens from a disk. The page around the trace is built with the UI (`scripts/saved.mjs`).
import template from "virtual-saved-page?url";
import { ApiError } from "../api";
import { toOtlp } from "./otlp";
import { SAVED_CLOSE, SAVED_OPEN } from "./read";
import type { SpanData } from "./read";

export interface Saved {
  id: string;
  /** Where it was saved, and when in Unix milliseconds. */
  from: string;
  at: number;
  otlp: unknown;
}

const escaped = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export async function savedPage(id: string, title: string, spans: readonly SpanData[]): Promise<string> {
  const answer = await fetch(template).catch(() => null);
  if (!answer?.ok) throw new ApiError(answer?.status ?? 0, "The page to save the trace in could not be loaded. Spanreel may have been updated or stopped meanwhile.");
  const page = await answer.text();
  const saved: Saved = { id, from: location.host, at: Date.now(), otlp: toOtlp(spans) };
  // No "<" in the data: nothing in them can end the element that they stand in.
  const data = JSON.stringify(saved).replace(/</g, "\\u003c");
  const from = page.indexOf(SAVED_OPEN) + SAVED_OPEN.length;
  const to = page.indexOf(SAVED_CLOSE, from);
  const head = page.slice(0, from).replace("<title></title>", () => `<title>${escaped(title)}</title>`);
  return head + data + page.slice(to);
}
