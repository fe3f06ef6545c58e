// A service has one colour, everywhere and the next time too: the first free one when this browser first saw it.

/** Colours of `--s0` and so on in the style sheet: told apart with the common kinds of colour blindness, no red. */
export const COLOURS = 14;
const KEY = "spanreel.services";
/** Names remembered; more share the colours of their hash. */
const REMEMBERED_MAX = 500;

const known = load();

function load(): Map<string, number> {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "[]") as unknown;
    if (Array.isArray(stored)) return new Map(stored.filter((name) => typeof name === "string").slice(0, REMEMBERED_MAX).map((name, i) => [name, i]));
  } catch {
    // Not allowed, or spoilt: then colours are as good as new.
  }
  return new Map();
}

let saving = false;

export function colourIndex(service: string): number {
  let index = known.get(service);
  if (index === undefined) {
    if (known.size >= REMEMBERED_MAX) return hash(service) % COLOURS;
    index = known.size;
    known.set(service, index);
    if (!saving) {
      saving = true;
      setTimeout(() => {
        saving = false;
        try {
          localStorage.setItem(KEY, JSON.stringify([...known.keys()]));
        } catch {
          // Then the colours last as long as the page.
        }
      }, 500);
    }
  }
  return index % COLOURS;
}

function hash(text: string): number {
  let value = 7;
  for (let i = 0; i < text.length; i++) value = (value * 31 + text.charCodeAt(i)) | 0;
  return value >>> 0;
}

/** For styles. */
export const colour = (service: string): string => `var(--s${colourIndex(service)})`;

/** For canvases, which know no variables. */
export function resolved(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
