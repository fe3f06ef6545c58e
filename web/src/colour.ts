// A service has one colour, everywhere and the next time too: that of its name, or where another one has that already, the
// next that fewest have.

/** Colours of `--s0` and so on in the style sheet: told apart with the common kinds of colour blindness, no red. */
export const COLOURS = 14;
const KEY = "spanreel.colours";
/** Names remembered; more share the colours of their hash. */
const REMEMBERED_MAX = 500;

const known = load();

function load(): Map<string, number> {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "[]") as unknown;
    if (Array.isArray(stored)) return new Map((stored as [unknown, unknown][]).filter((pair): pair is [string, number] => Array.isArray(pair) && typeof pair[0] === "string" && Number.isInteger(pair[1])).slice(0, REMEMBERED_MAX));
  } catch {
    // Not allowed, or spoilt: then colours are as good as new.
  }
  return new Map();
}

/** How many of the remembered have each colour. */
const taken = new Array<number>(COLOURS).fill(0);
for (const index of known.values()) taken[index % COLOURS]! += 1;

/** The colour of the name's hash, or the first behind it that fewer have. */
function choose(service: string): number {
  const wanted = hash(service) % COLOURS;
  const least = Math.min(...taken);
  for (let i = 0; i < COLOURS; i++) if (taken[(wanted + i) % COLOURS] === least) return (wanted + i) % COLOURS;
  return wanted;
}

let saving = false;

export function colourIndex(service: string): number {
  let index = known.get(service);
  if (index === undefined) {
    if (known.size >= REMEMBERED_MAX) return hash(service) % COLOURS;
    index = choose(service);
    taken[index]! += 1;
    known.set(service, index);
    if (!saving) {
      saving = true;
      setTimeout(() => {
        saving = false;
        try {
          localStorage.setItem(KEY, JSON.stringify([...known]));
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
