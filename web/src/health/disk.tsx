// Where data lie, how long there is room, and how much the flash is written.
import type { Health } from "../api";
import { bytes, coarse, count, percent } from "../format";
import { FORECAST_SECONDS_MAX, RATE_SECONDS_MIN, forecast } from "../pages/home";

export function Disk({ now }: { now: Health }) {
  const { spool, store, uptime_seconds: uptime } = now;
  const perDay = spool.written_per_day_bytes;
  const isEarly = uptime < RATE_SECONDS_MIN;
  const hasDate = spool.full_in_seconds !== null && spool.full_in_seconds <= FORECAST_SECONDS_MAX && !isEarly;
  return (
    <section>
      <h2>Disk</h2>
      <div class="cards">
        <Gauge
          title="Spool"
          value={spool.bytes}
          max={spool.bytes_max}
          note={`${count(spool.batches)} batches, ${bytes(spool.raw_bytes)} before compression${spool.batches > 0 ? `; oldest ${coarse(spool.oldest_age_seconds)}` : ""}; ${forecast(spool.full_in_seconds, uptime)}${hasDate ? ", then the oldest goes" : ""}`}
        />
        <Gauge
          title="Store"
          value={store.bytes}
          max={store.bytes_max ?? 0}
          note={`${count(store.spans)} spans${store.spans > 0 ? `, ${Math.round(store.bytes / store.spans)} bytes each` : ""}${store.oldest_received ? `; oldest ${coarse(Date.now() / 1000 - store.oldest_received)}` : ""}${store.max_age_seconds ? `; kept ${coarse(store.max_age_seconds)}` : ""}${store.pinned_traces > 0 ? `; ${count(store.pinned_traces)} traces are pinned` : ""}${store.waiting_spans > 0 ? `; ${count(store.waiting_spans)} more are still in the spool` : ""}`}
          problem={store.damaged_runs > 0 ? `${count(store.damaged_runs)} runs are damaged: spanreel verify says where.` : ""}
        />
        <div class="card">
          <h2>Free on the disk</h2>
          <span class={spool.disk_full ? "big bad-text" : "big"}>{bytes(spool.disk_free_bytes)}</span>
          <p class="note">
            <code>{spool.directory}</code>
            {spool.disk_error && <b class="bad-text"> {spool.disk_error}</b>}
          </p>
        </div>
        <div class="card">
          <h2>Written to the flash</h2>
          {perDay === null || isEarly ? <span class="big">–</span> : <><span class="big">{bytes(perDay)}</span> <small>a day</small></>}
          <p class="note">
            {perDay !== null && (isEarly ? "Too early to say how much it is a day. " : `${bytes(perDay * 365)} a year. `)}
            A sync before each OK takes {(spool.sync_mean_micros / 1000).toFixed(1)} ms in the mean of {count(spool.syncs)}, {(spool.sync_max_micros / 1000).toFixed(0)} ms at most.
          </p>
        </div>
      </div>
    </section>
  );
}

interface GaugeProps {
  title: string;
  value: number;
  /** 0: no limit is known. */
  max: number;
  note: string;
  problem?: string;
}

function Gauge({ title, value, max, note, problem = "" }: GaugeProps) {
  const share = max > 0 ? value / max : 0;
  return (
    <div class="card">
      <h2>{title}</h2>
      <span class="big">{bytes(value)}</span> {max > 0 && <small>of {bytes(max)}</small>}
      {max > 0 && (
        <div class={share > 0.95 ? "meter bad" : share > 0.8 ? "meter warn" : "meter"} role="img" aria-label={percent(share)}>
          <i style={{ width: `${Math.min(100, share * 100)}%` }} />
        </div>
      )}
      <p class="note">{note}</p>
      {problem && <p class="bad-text">{problem}</p>}
    </div>
  );
}
