// Durations over time: how many spans took how long (cells), and single traces (dots). A box drawn with the pointer is
// handed to the page.
import type { TargetedKeyboardEvent, TargetedPointerEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { resolved } from "../colour";
import { clock, count, duration } from "../format";
import { useScheme, useSize } from "../hooks";
import type { Box } from "./box";

export interface Cell {
  /** Unix seconds; the cell ends at `to`. */
  from: number;
  to: number;
  /** Nanoseconds. */
  low: number;
  high: number;
  count: number;
}

export interface Dot {
  id: string;
  /** Unix seconds. */
  at: number;
  nanos: number;
  colour: string;
  error: boolean;
  title: string;
}

interface Props {
  from: number;
  to: number;
  cells: Cell[];
  dots: Dot[];
  box: Box | null;
  onBox: (box: Box | null) => void;
  onDot: (id: string) => void;
  label: string;
}

const LEFT = 46;
const BOTTOM = 18;
const TOP = 6;
const RIGHT = 8;
/** A pointer that moves less than this clicks. */
const DRAG_PIXELS = 4;
const DOT_PIXELS = 3.5;
/** A key moves a side of the box by this. */
const KEY_PIXELS = 12;
const ARROWS: Record<string, readonly [x: number, y: number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

interface Scale {
  x: (at: number) => number;
  y: (nanos: number) => number;
  at: (x: number) => number;
  nanos: (y: number) => number;
  low: number;
  high: number;
}

function scale({ from, to, cells, dots }: Props, width: number, height: number): Scale {
  let low = Infinity;
  let high = 0;
  for (const cell of cells) {
    low = Math.min(low, cell.low);
    high = Math.max(high, cell.high);
  }
  for (const dot of dots) {
    low = Math.min(low, Math.max(dot.nanos, 1e3) / 1.3);
    high = Math.max(high, dot.nanos * 1.3);
  }
  if (high === 0) {
    low = 1e6;
    high = 1e9;
  }
  low = Math.max(low, 1e3);
  if (high < low * 4) high = low * 4;
  const inner = { width: Math.max(1, width - LEFT - RIGHT), height: Math.max(1, height - TOP - BOTTOM) };
  const span = Math.log(high / low);
  return {
    low,
    high,
    x: (at) => LEFT + ((at - from) / (to - from)) * inner.width,
    y: (nanos) => TOP + (1 - Math.log(Math.max(nanos, low) / low) / span) * inner.height,
    at: (x) => from + ((x - LEFT) / inner.width) * (to - from),
    nanos: (y) => low * Math.exp((1 - (y - TOP) / inner.height) * span),
  };
}

/** Round times within the range, about one per 110 pixels. */
function timeTicks(from: number, to: number, width: number): number[] {
  const wanted = (to - from) / Math.max(2, width / 110);
  const step = [1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400].find((one) => one >= wanted) ?? 172_800;
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const ticks: number[] = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at < to; at += step) ticks.push(at);
  return ticks;
}

export function DurationChart(props: Props) {
  const { from, to, cells, dots, box, onBox, onDot, label } = props;
  const [attach, { width, height }] = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useScheme();
  const [drag, setDrag] = useState<{ x0: number; y0: number; x1: number; y1: number } | null>(null);
  const [hover, setHover] = useState<{ x: number; y: number; text: string } | null>(null);
  const at = useMemo(() => scale(props, width, height), [from, to, cells, dots, width, height]);

  useEffect(() => {
    const element = canvas.current;
    if (!element || width === 0) return;
    const ratio = devicePixelRatio || 1;
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
    const context = element.getContext("2d");
    if (!context) return;
    context.scale(ratio, ratio);
    draw(context, width, height, props, at);
  }, [at, scheme]);

  const position = (event: PointerEvent) => {
    const bounds = canvas.current!.getBoundingClientRect();
    return { x: Math.min(Math.max(event.clientX - bounds.left, LEFT), width - RIGHT), y: Math.min(Math.max(event.clientY - bounds.top, TOP), height - BOTTOM) };
  };
  const nearest = (x: number, y: number): Dot | null => {
    let best: Dot | null = null;
    let distance = 9 * 9;
    for (const dot of dots) {
      const d = (at.x(dot.at) - x) ** 2 + (at.y(dot.nanos) - y) ** 2;
      if (d <= distance) {
        best = dot;
        distance = d;
      }
    }
    return best;
  };
  const down = (event: TargetedPointerEvent<HTMLCanvasElement>) => {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const { x, y } = position(event);
    setDrag({ x0: x, y0: y, x1: x, y1: y });
    setHover(null);
  };
  const move = (event: TargetedPointerEvent<HTMLCanvasElement>) => {
    const { x, y } = position(event);
    if (drag) {
      setDrag({ ...drag, x1: x, y1: y });
      return;
    }
    const dot = nearest(x, y);
    if (dot) {
      setHover({ x, y, text: dot.title });
      return;
    }
    const time = at.at(x);
    const nanos = at.nanos(y);
    const cell = cells.find((one) => one.from <= time && time < one.to && one.low <= nanos && nanos < one.high);
    setHover(cell ? { x, y, text: `${count(cell.count)} spans of ${duration(cell.low)} to ${duration(cell.high)} at ${clock(cell.from * 1000)}` } : null);
  };
  const up = () => {
    if (!drag) return;
    setDrag(null);
    if (Math.abs(drag.x1 - drag.x0) < DRAG_PIXELS && Math.abs(drag.y1 - drag.y0) < DRAG_PIXELS) {
      const dot = nearest(drag.x0, drag.y0);
      if (dot) onDot(dot.id);
      else onBox(null);
      return;
    }
    const [x0, x1] = [Math.min(drag.x0, drag.x1), Math.max(drag.x0, drag.x1)];
    const [y0, y1] = [Math.min(drag.y0, drag.y1), Math.max(drag.y0, drag.y1)];
    onBox({ from: at.at(x0), to: at.at(x1), low: at.nanos(y1), high: at.nanos(y0) });
  };
  /** Enter draws a box in the middle, arrows move it, with Shift they move its right or lower side, Escape takes it away. */
  const keys = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    const arrow = ARROWS[event.key];
    if (event.key === "Escape" && box) onBox(null);
    else if (event.key === "Enter" || arrow) {
      const inner = { x: width - LEFT - RIGHT, y: height - TOP - BOTTOM };
      const side = box
        ? { x0: at.x(box.from), x1: at.x(box.to), y0: at.y(box.high), y1: at.y(box.low) }
        : { x0: LEFT + inner.x / 3, x1: LEFT + (inner.x * 2) / 3, y0: TOP + inner.y / 4, y1: TOP + inner.y / 2 };
      const [dx, dy] = box && arrow ? [arrow[0] * KEY_PIXELS, arrow[1] * KEY_PIXELS] : [0, 0];
      const within = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));
      const x1 = within(side.x1 + dx, LEFT + KEY_PIXELS, width - RIGHT);
      const y1 = within(side.y1 + dy, TOP + KEY_PIXELS, height - BOTTOM);
      const x0 = within(event.shiftKey ? side.x0 : side.x0 + dx, LEFT, x1 - KEY_PIXELS);
      const y0 = within(event.shiftKey ? side.y0 : side.y0 + dy, TOP, y1 - KEY_PIXELS);
      onBox({ from: at.at(x0), to: at.at(x1), low: at.nanos(y1), high: at.nanos(y0) });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const shown = drag
    ? { left: Math.min(drag.x0, drag.x1), top: Math.min(drag.y0, drag.y1), width: Math.abs(drag.x1 - drag.x0), height: Math.abs(drag.y1 - drag.y0) }
    : box
      ? { left: at.x(box.from), top: at.y(box.high), width: at.x(box.to) - at.x(box.from), height: at.y(box.low) - at.y(box.high) }
      : null;
  return (
    <div class="durations" ref={attach} tabIndex={0} role="group" aria-label="Choose time and duration: Enter draws a box, arrows move it, with Shift they change its size, Escape removes it" onKeyDown={keys}>
      <canvas ref={canvas} role="img" aria-label={label} onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={() => setDrag(null)} onPointerLeave={() => setHover(null)} style={{ width: `${width}px`, height: `${height}px` }} />
      {shown && <div class="box" style={{ left: `${shown.left}px`, top: `${shown.top}px`, width: `${shown.width}px`, height: `${shown.height}px` }} />}
      {hover && (
        <div class={hover.x > width / 2 ? "tip left" : "tip"} style={{ left: `${hover.x}px`, top: `${hover.y}px` }}>
          {hover.text}
        </div>
      )}
    </div>
  );
}

function draw(context: CanvasRenderingContext2D, width: number, height: number, { from, to, cells, dots }: Props, at: Scale): void {
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  const faint = resolved("--grid");
  const text = resolved("--muted");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let decade = 10 ** Math.ceil(Math.log10(at.low)); decade <= at.high; decade *= 10) {
    const y = Math.round(at.y(decade)) + 0.5;
    context.strokeStyle = faint;
    context.beginPath();
    context.moveTo(LEFT, y);
    context.lineTo(width - RIGHT, y);
    context.stroke();
    context.fillStyle = text;
    context.fillText(duration(decade), LEFT - 6, y);
  }
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (const tick of timeTicks(from, to, width)) {
    const x = Math.round(at.x(tick)) + 0.5;
    if (x < LEFT + 18 || x > width - 24) continue;
    context.strokeStyle = faint;
    context.beginPath();
    context.moveTo(x, TOP);
    context.lineTo(x, height - BOTTOM);
    context.stroke();
    const label = clock(tick * 1000);
    context.fillStyle = text;
    context.fillText(to - from > 600 ? label.replace(/:\d\d$/, "") : label, x, height - 3);
  }
  const most = cells.reduce((max, cell) => Math.max(max, cell.count), 1);
  context.fillStyle = resolved("--heat");
  for (const cell of cells) {
    const x = Math.max(LEFT, at.x(cell.from));
    const right = Math.min(width - RIGHT, at.x(cell.to));
    const y = at.y(cell.high);
    if (right <= x) continue;
    context.globalAlpha = 0.14 + 0.86 * (Math.log1p(cell.count) / Math.log1p(most));
    context.fillRect(x + 0.5, y + 0.5, Math.max(1, right - x - 1), Math.max(1, at.y(cell.low) - y - 1));
  }
  context.globalAlpha = 1;
  const failed = resolved("--bad");
  const ground = resolved("--ground");
  for (const dot of dots) {
    context.beginPath();
    context.arc(at.x(dot.at), at.y(dot.nanos), DOT_PIXELS, 0, 2 * Math.PI);
    context.fillStyle = dot.error ? failed : resolved(dot.colour);
    context.fill();
    context.strokeStyle = ground;
    context.stroke();
  }
}
