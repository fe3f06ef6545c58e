// Numbers as people read them.

/** Nanoseconds: three significant digits and the unit that fits. */
export function duration(nanos: number): string {
  if (!Number.isFinite(nanos)) return "?";
  if (nanos < 0) return `-${duration(-nanos)}`;
  if (nanos === 0) return "0";
  if (nanos < 1e3) return `${Math.round(nanos)}ns`;
  if (nanos < 999.5e3) return `${digits(nanos / 1e3)}µs`;
  if (nanos < 999.5e6) return `${digits(nanos / 1e6)}ms`;
  const seconds = nanos / 1e9;
  if (seconds < 59.95) return `${digits(seconds)}s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86_400)}d ${Math.floor((whole % 86_400) / 3600)}h`;
}

/** Three significant digits without needless zeros. */
function digits(value: number): string {
  const text = value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** A duration as TraceQL reads it. */
export function durationLiteral(nanos: number): string {
  const rounded = Math.max(0, Math.round(nanos));
  if (rounded >= 1e9) return `${+(rounded / 1e9).toPrecision(4)}s`;
  if (rounded >= 1e6) return `${+(rounded / 1e6).toPrecision(4)}ms`;
  if (rounded >= 1e3) return `${+(rounded / 1e3).toPrecision(4)}us`;
  return `${rounded}ns`;
}

/** 1,234; 56.7k; 8.9M. */
export function count(value: number): string {
  if (!Number.isFinite(value)) return "?";
  if (Math.abs(value) < 10_000) return Math.round(value).toLocaleString("en");
  if (Math.abs(value) < 999_500) return `${digits(value / 1e3)}k`;
  if (Math.abs(value) < 999.5e6) return `${digits(value / 1e6)}M`;
  return `${digits(value / 1e9)}G`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : digits(value)} ${units[unit]}`;
}

/** Events per second. */
export function rate(perSecond: number): string {
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "<0.01";
  return perSecond < 1000 ? digits(perSecond) : count(perSecond);
}

export function percent(share: number): string {
  if (share === 0) return "0%";
  if (share < 0.001) return "<0.1%";
  if (share >= 1) return "100%";
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)}%`;
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** The time of day, with the date unless it is today. */
export function clock(ms: number): string {
  const date = new Date(ms);
  const today = new Date();
  return date.toDateString() === today.toDateString() ? time.format(date) : `${day.format(date)} ${time.format(date)}`;
}

/** Date and time to the millisecond, in the browser's zone. */
export function moment(ms: number): string {
  const fraction = String(Math.floor(((ms % 1000) + 1000) % 1000)).padStart(3, "0");
  return `${full.format(new Date(ms))}.${fraction}`;
}

/** How long ago, coarsely. */
export function ago(ms: number, now = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 2) return "now";
  return `${coarse(seconds)} ago`;
}

/** Seconds in one unit. */
export function coarse(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** Characters that would move or hide others are shown as what they are. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
