// Keys: each page says what it answers to, and `?` shows all that hold at the moment.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

export interface Key {
  /** As `event.key` says it, or two in sequence with a blank: `g t`. Several with ` / `. `Ctrl+` before a key, and `Shift+` before one without a sign of its own. */
  keys: string;
  does: string;
  run: (event: KeyboardEvent) => void;
}

export interface KeyGroup {
  title: string;
  keys: Key[];
}

export const groups = signal<KeyGroup[]>([]);
export const helpShown = signal(false);
/** Milliseconds within which a sequence's second key must come. */
const SEQUENCE_MS = 1200;
let prefix = "";
let prefixAt = 0;

export function useKeys(title: string, keys: Key[]): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const group: KeyGroup = {
      title,
      get keys() {
        return latest.current;
      },
    };
    groups.value = [...groups.value, group];
    return () => {
      groups.value = groups.value.filter((one) => one !== group);
    };
  }, [title]);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.metaKey || event.altKey || isTyping(event.target)) return;
  // A dialog has its own keys; Escape closes it.
  if (document.querySelector("dialog[open]") && event.key !== "?") return;
  // Keys that a control of its own has.
  if ((event.key === "Enter" || event.key === " ") && event.target instanceof HTMLElement && /^(BUTTON|A|SUMMARY)$/.test(event.target.tagName)) return;
  const pressed = (event.ctrlKey ? "Ctrl+" : "") + (event.shiftKey && event.key.length > 1 ? "Shift+" : "") + event.key;
  const sequence = performance.now() - prefixAt < SEQUENCE_MS ? `${prefix} ${pressed}` : "";
  prefix = "";
  for (const wanted of sequence ? [sequence, pressed] : [pressed]) {
    for (const group of [...groups.value].reverse()) {
      const key = group.keys.find((one) => one.keys.split(" / ").includes(wanted));
      if (key) {
        event.preventDefault();
        key.run(event);
        return;
      }
    }
  }
  if (groups.value.some((group) => group.keys.some((key) => key.keys.split(" / ").some((one) => one.startsWith(`${pressed} `))))) {
    prefix = pressed;
    prefixAt = performance.now();
  }
});
