// What `/ui/api/cluster` says: the doctor's report, what catch-up found, and the custom resources.

export interface Decision {
  language: string;
  /** Null: none was reached. */
  container: string | null;
  result: "injected" | "skipped" | "refused";
  reason: string | null;
  message: string | null;
  instrumentation: { name: string } | null;
  agent_image: string | null;
  remedy: string | null;
}

export interface Life {
  state: "asked" | "injected" | "started" | "speaking" | "silent";
  /** RFC 3339. */
  first_span: string | null;
  last_span: string | null;
  likely_cause: string | null;
}

export interface Example {
  name: string;
  condition: string;
  containers: { container: string | null; language: string | null; condition: string; why: string; remedy: string | null; life: Life | null }[];
}

export interface Workload {
  kind: string;
  namespace: string;
  name: string;
  condition: string;
  why: string;
  remedy: string | null;
  asked: { language: string; annotation: string; value: string; where: string }[];
  decisions: Decision[];
  notes: string[];
  pods: number;
  pod_conditions: Record<string, number>;
  examples: Example[];
}

export interface Examination {
  webhook_registered: boolean;
  conditions: Record<string, number>;
  workloads: Workload[];
  left_out: { workloads: number; pods: number; not_asking: number };
  notes: string[];
}

export interface CatchUp {
  /** When it last looked, RFC 3339; null: not yet. */
  at: string | null;
  mode: "report" | "restart" | "off";
  pods: Record<string, number>;
  workloads: { namespace: string; kind: string; name: string; state: string; pods: Record<string, number>; example: string; instrumentations: string[]; waits: string | null }[];
  crash_loops: { namespace: string; kind: string; name: string; languages: string[]; example: string; evidence: "pod" | "revision" }[];
  pods_left_out: number;
  unreadable: number;
}

export interface Collector {
  namespace: string;
  name: string;
  ready: boolean | null;
  reason: string;
  message: string;
  /** Unix seconds. */
  since: number | null;
  running: boolean;
  ports: { name: string; port: number; udp: boolean }[];
  fix: string | null;
}

export interface Instrumentation {
  namespace: string;
  name: string;
  generation: number;
  ok: boolean;
  message: string | null;
  fix: string | null;
}

export interface ClusterReport {
  examination: Examination | null;
  examination_problem?: string | null;
  catch_up: CatchUp | null;
  collectors: Collector[];
  instrumentations: Instrumentation[];
  left_out: { collectors: number; instrumentations: number };
}

/** From worst to best, as the report sorts. */
export const TONES: Record<string, string> = {
  silent: "bad", stuck: "bad", refused: "bad", excluded: "warn", misplaced: "bad", misspelt: "bad", missed: "warn", refused_next: "warn",
  stale: "warn", unwanted: "warn", quiet: "", injected: "", started: "", ready: "", speaking: "good", not_asked: "",
};

export const MEANINGS: Record<string, string> = {
  silent: "injected and running, and no span ever came",
  stuck: "injected, and it does not get to run",
  refused: "asked for and not injected",
  excluded: "in a namespace where nothing is injected",
  misplaced: "the annotation is on the workload instead of its pod template",
  misspelt: "the annotation names no language",
  missed: "not injected; a pod that came now would be",
  refused_next: "injected; a pod that came now would be refused",
  stale: "injected from an older generation",
  unwanted: "injected, and nothing asks for it any more",
  quiet: "it spoke before, and not lately",
  injected: "on its way: does not run yet",
  started: "runs; no span came yet",
  ready: "no pods; one that came would be injected",
  speaking: "a span came lately",
  not_asked: "nothing asks for it",
};

export const words = (condition: string): string => condition.replace(/_/g, " ");

/** The stations of a workload's way to its first span. */
export const STATIONS = ["asked", "injected", "started", "speaking"] as const;

/** How many stations are behind a workload of this condition, of which a pod may be known to speak, and whether it is stuck at the next. */
export function reached(condition: string, speaks = false): { stations: number; stuck: boolean } {
  switch (condition) {
    case "speaking": return { stations: 4, stuck: false };
    case "silent": return { stations: 3, stuck: true };
    // Those run injected; what is wrong is their next pod, or that they have nothing to say.
    case "quiet": case "stale": case "unwanted": case "refused_next": return { stations: speaks ? 4 : 3, stuck: false };
    case "started": return { stations: 3, stuck: false };
    case "stuck": return { stations: 2, stuck: true };
    case "injected": return { stations: 2, stuck: false };
    case "ready": return { stations: 1, stuck: false };
    case "not_asked": return { stations: 0, stuck: false };
    case "misspelt": case "misplaced": return { stations: 0, stuck: true };
    default: return { stations: 1, stuck: true };
  }
}
