// The whole trace in small; the part that the waterfall shows is chosen here.
import type { TargetedPointerEvent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { colourIndex, resolved } from "../colour";
import { useScheme, useSize } from "../hooks";
import type { Trace } from "./model";

/** Shares of the trace's duration. */
export interface Zoom {
  from: number;
  to: number;
}

export const WHOLE: Zoom = { from: 0, to: 1 };
/** Pixels around an edge in which it is taken hold of. */
const GRIP_PIXELS = 7;
/** A millionth of a trace is as deep as one can look. */
const SHARE_MIN = 1e-6;

export function bounded(zoom: Zoom): Zoom {
  const share = Math.min(1, Math.max(SHARE_MIN, zoom.to - zoom.from));
  const from = Math.min(1 - share, Math.max(0, zoom.from));
  return { from, to: from + share };
}

interface Props {
  trace: Trace;
  zoom: Zoom;
  setZoom: (zoom: Zoom) => void;
}

export function Minimap({ trace, zoom, setZoom }: Props) {
  const [attach, { width, height }] = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const scheme = useScheme();
  const drag = useRef<{ kind: "from" | "to" | "new" | "move"; at: number; zoom: Zoom } | null>(null);

  useEffect(() => {
    const element = canvas.current;
    if (!element || width === 0) return;
    const ratio = devicePixelRatio || 1;
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
    const context = element.getContext("2d");
    if (!context) return;
    context.scale(ratio, ratio);
    const total = Math.max(1, trace.duration);
    const each = Math.min(4, (height - 6) / Math.max(1, trace.nodes.length));
    const colours = new Map(trace.services.map(({ service }) => [service, resolved(`--s${colourIndex(service)}`)]));
    const bad = resolved("--bad");
    const draw = (failed: boolean) => {
      for (const node of trace.nodes) {
        if (!node.span || node.error !== failed) continue;
        context.fillStyle = failed ? bad : (colours.get(node.service) ?? bad);
        const y = 3 + node.index * each;
        context.fillRect((node.start / total) * width, y, Math.max(1, ((node.end - node.start) / total) * width), Math.max(0.8, each - 0.4));
      }
    };
    draw(false);
    draw(true);
  }, [trace, width, height, scheme]);

  const share = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const down = (event: TargetedPointerEvent<HTMLDivElement>) => {
    if (event.button !== 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const at = share(event);
    const grip = GRIP_PIXELS / Math.max(1, width);
    const isZoomed = zoom.from > 0 || zoom.to < 1;
    const kind = Math.abs(at - zoom.from) < grip ? "from" : Math.abs(at - zoom.to) < grip ? "to" : isZoomed && event.shiftKey ? "move" : "new";
    drag.current = { kind, at, zoom };
  };
  const move = (event: TargetedPointerEvent<HTMLDivElement>) => {
    const held = drag.current;
    if (!held) return;
    const at = share(event);
    if (held.kind === "from") setZoom(bounded({ from: Math.min(at, zoom.to - SHARE_MIN), to: zoom.to }));
    else if (held.kind === "to") setZoom(bounded({ from: zoom.from, to: Math.max(at, zoom.from + SHARE_MIN) }));
    else if (held.kind === "move") setZoom(bounded({ from: held.zoom.from + at - held.at, to: held.zoom.to + at - held.at }));
    else if (Math.abs(at - held.at) > 3 / Math.max(1, width)) setZoom(bounded({ from: Math.min(at, held.at), to: Math.max(at, held.at) }));
  };
  return (
    <div class="minimap" ref={attach} onPointerDown={down} onPointerMove={move} onPointerUp={() => (drag.current = null)} onPointerCancel={() => (drag.current = null)} onDblClick={() => setZoom(WHOLE)} title="Drag to zoom, double-click for all">
      <canvas ref={canvas} role="img" aria-label={`Overview of ${trace.spans} spans`} />
      <div class="shade" style={{ left: "0", width: `${zoom.from * 100}%` }} />
      <div class="shade" style={{ right: "0", width: `${(1 - zoom.to) * 100}%` }} />
      {zoom.from > 0 && <div class="grip" style={{ left: `${zoom.from * 100}%` }} />}
      {zoom.to < 1 && <div class="grip" style={{ left: `${zoom.to * 100}%` }} />}
    </div>
  );
}
