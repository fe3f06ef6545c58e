// The few building blocks that pages share.
import type { ComponentChildren, TargetedKeyboardEvent, TargetedMouseEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ApiError } from "./api";
import { colour } from "./colour";

/** Milliseconds for which a button says that it has copied. */
const COPIED_MS = 1200;

/** Paths of 16 by 16 icons, drawn for this UI. */
const ICONS = {
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  check: "M3.5 8.5l3 3 6-7",
  close: "M4 4l8 8M12 4l-8 8",
  right: "M6 3.5l4.5 4.5L6 12.5",
  down: "M3.5 6l4.5 4.5L12.5 6",
  left: "M10 3.5L5.5 8l4.5 4.5",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.5 10.5l3.5 3.5",
  reload: "M13 8a5 5 0 1 1-1.5-3.6M13 2.5v3h-3",
  download: "M8 2.5v7.5M4.5 7L8 10.5 11.5 7M3 13.5h10",
  error: "M8 2.2l6 11.3H2zM8 6.4v3.4M8 11.6v.3",
  plus: "M8 3.5v9M3.5 8h9",
  minus: "M3.5 8h9",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.5l7 4.5-7 4.5z",
  link: "M6.5 9.5l3-3M7 5l1.5-1.5a2.5 2.5 0 0 1 4 3.5L11 8.5M9 11l-1.5 1.5a2.5 2.5 0 0 1-4-3.5L5 7.5",
  clock: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 5v3.2l2.2 1.4",
  upload: "M8 10.5V3M4.5 6.5L8 3l3.5 3.5M3 13.5h10",
  filter: "M2.5 3.5h11L9.5 8.5v4l-3 1v-5z",
} as const;

export type IconName = keyof typeof ICONS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

export function ServiceDot({ service }: { service: string }) {
  return <i class="dot" style={{ background: colour(service) }} />;
}

export function Service({ service }: { service: string }) {
  return (
    <span class="service">
      <ServiceDot service={service} />
      <span class="clip">{service || "?"}</span>
    </span>
  );
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https there is no clipboard API; the old way still works.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

interface CopyProps {
  text: string | (() => string);
  label: string;
  icon?: IconName;
  children?: ComponentChildren;
}

export function CopyButton({ text, label, icon = "copy", children }: CopyProps) {
  const [copied, setCopied] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const run = async () => {
    if (!(await copy(typeof text === "string" ? text : text()))) return;
    setCopied(true);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setCopied(false), COPIED_MS);
  };
  return (
    <button type="button" class="quiet" onClick={() => void run()} title={label} aria-label={copied ? "Copied" : label}>
      <Icon name={copied ? "check" : icon} />
      {children}
    </button>
  );
}

/** A command to copy. */
export function Command({ text, what }: { text: string; what: string }) {
  return (
    <div class="command">
      <pre tabIndex={0}>{text}</pre>
      <CopyButton text={text} label={`Copy ${what}`} />
    </div>
  );
}

export function Failure({ error, retry, what }: { error: ApiError; retry?: () => void; what: string }) {
  return (
    <div class="failure" role="alert">
      <Icon name="error" />
      <div>
        <strong>{what}</strong>
        <pre>{error.message}</pre>
      </div>
      {retry && (
        <button type="button" onClick={retry}>
          <Icon name="reload" /> Try again
        </button>
      )}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <strong>{title}</strong>
      {children}
    </div>
  );
}

/** Where data are on their way for the first time. */
export function Waiting({ rows = 6 }: { rows?: number }) {
  return (
    <div class="waiting" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <i key={i} />
      ))}
    </div>
  );
}

interface ModalProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

export function Modal({ title, onClose, children }: ModalProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (element && !element.open) element.showModal();
  }, []);
  const outside = (event: TargetedMouseEvent<HTMLDialogElement>) => {
    if (event.target === dialog.current) onClose();
  };
  return (
    <dialog ref={dialog} onClose={onClose} onClick={outside} aria-label={title}>
      <header>
        <h2>{title}</h2>
        <button type="button" class="quiet" onClick={onClose} aria-label="Close">
          <Icon name="close" />
        </button>
      </header>
      <div class="body">{children}</div>
    </dialog>
  );
}

interface MenuProps {
  icon: IconName;
  title: string;
  /** Buttons with the role `menuitem`. */
  children: ComponentChildren;
}

/** A button that opens a list of actions. */
export function Menu({ icon, title, children }: MenuProps) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const items = () => [...(box.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
  const button = () => box.current?.querySelector<HTMLElement>("[aria-haspopup]");
  useEffect(() => {
    if (!open) return;
    items()[0]?.focus();
    const outside = (event: PointerEvent) => {
      if (!box.current?.contains(event.target as globalThis.Node)) setOpen(false);
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, [open]);
  const keys = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (event.key === "Escape" && open) {
      setOpen(false);
      button()?.focus();
    } else if (step !== 0 && open) {
      const all = items();
      all[(all.indexOf(document.activeElement as HTMLElement) + step + all.length) % all.length]?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" ref={box} onKeyDown={keys}>
      <button type="button" aria-haspopup="menu" aria-expanded={open} onClick={() => setOpen(!open)}>
        <Icon name={icon} /> {title}
      </button>
      {open && (
        <div role="menu" aria-label={title} onClick={() => { setOpen(false); button()?.focus(); }}>
          {children}
        </div>
      )}
    </div>
  );
}

interface TabsProps<T extends string> {
  tabs: readonly (readonly [T, string])[];
  chosen: T;
  choose: (tab: T) => void;
  label: string;
}

export function Tabs<T extends string>({ tabs, chosen, choose, label }: TabsProps<T>) {
  const keys = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    event.stopPropagation();
    const at = tabs.findIndex(([tab]) => tab === chosen);
    const next = (at + step + tabs.length) % tabs.length;
    choose(tabs[next]![0]);
    (event.currentTarget.children[next] as HTMLElement | undefined)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={keys}>
      {tabs.map(([tab, title]) => (
        <button key={tab} type="button" role="tab" aria-selected={tab === chosen} tabIndex={tab === chosen ? 0 : -1} onClick={() => choose(tab)}>
          {title}
        </button>
      ))}
    </div>
  );
}

interface TableProps {
  /** Titles; those of numbers with a `#` before them. */
  columns: readonly string[];
  name?: string;
  children: ComponentChildren;
}

/** A table that scrolls by itself where the screen is narrow. */
export function Table({ columns, name = "", children }: TableProps) {
  return (
    <div class="table-wrap" tabIndex={0}>
      <table class={`data ${name}`}>
        <thead>
          <tr>
            {columns.map((title) => (
              <th key={title} scope="col" class={title.startsWith("#") ? "number" : undefined}>
                <span>{title.replace("#", "")}</span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

/** A line of numbers without axes. Null is a gap. */
export function Sparkline({ values, label, tone = "" }: { values: (number | null)[]; label: string; tone?: string }) {
  const width = 120;
  const height = 26;
  const max = values.reduce((top: number, value) => Math.max(top, value ?? 0), 0);
  const x = (i: number) => (values.length < 2 ? 0 : (i / (values.length - 1)) * width);
  const y = (value: number) => height - 1.5 - (max === 0 ? 0 : (value / max) * (height - 4));
  let line = "";
  let area = "";
  for (let i = 0; i < values.length; ) {
    if (values[i] === null) {
      i += 1;
      continue;
    }
    const from = i;
    let part = "";
    for (; i < values.length && values[i] !== null; i++) part += `${i === from ? "M" : "L"}${x(i).toFixed(1)} ${y(values[i] ?? 0).toFixed(1)}`;
    line += part;
    area += `${part}L${x(i - 1).toFixed(1)} ${height}L${x(from).toFixed(1)} ${height}z`;
  }
  return (
    <svg class={`spark ${tone}`} viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      {max > 0 && <path class="area" d={area} />}
      <path class="line" d={line} />
    </svg>
  );
}
