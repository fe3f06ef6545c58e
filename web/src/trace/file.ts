// A file that was dropped: its traces live in this page's memory and go nowhere.
import { signal } from "@preact/signals";
import type { SpanData } from "./read";

export const opened = signal<{ name: string; traces: Map<string, SpanData[]> } | null>(null);
