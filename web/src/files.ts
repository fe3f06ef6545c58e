// Files: out to the disk, and in from it. What was opened lives in this page's memory and goes nowhere.
import { signal } from "@preact/signals";
import { go } from "./router";
import { byTrace, readFile } from "./trace/read";
import type { SpanData } from "./trace/read";

/** A file that is larger than this is not read into the browser. */
const FILE_BYTES_MAX = 256 * 1024 * 1024;

export interface Opened {
  name: string;
  /** By trace id, the largest first; a span without trace id is filed under the empty one. */
  traces: Map<string, SpanData[]>;
}

export const opened = signal<Opened | null>(null);

/** Why the last file could not be opened. */
export const fileProblem = signal("");

export async function tracesOf(file: File): Promise<Map<string, SpanData[]>> {
  if (file.size > FILE_BYTES_MAX) throw new Error("larger than 256 MiB");
  const traces = new Map(byTrace(readFile(await file.text())));
  if (traces.size === 0) throw new Error("no span is in it");
  return traces;
}

/** Shows what is in a file like a stored trace. */
export async function openFile(file: File): Promise<void> {
  fileProblem.value = "";
  try {
    const traces = await tracesOf(file);
    opened.value = { name: file.name, traces };
    const [first = ""] = traces.keys();
    go(`trace/${first || "none"}`, { file: file.name });
  } catch (problem) {
    fileProblem.value = `${file.name}: ${(problem as Error).message}`;
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
