import { ApiError, get } from "../api";
import { CatchUp } from "../cluster/catchup";
import type { ClusterReport } from "../cluster/report";
import { Resources } from "../cluster/resources";
import { Workloads } from "../cluster/workloads";
import { count } from "../format";
import { useAnswer, useTitle } from "../hooks";
import { change, parameter } from "../router";
import { Empty, Failure, Icon, Tabs, Waiting } from "../ui";

type Tab = "workloads" | "catch-up" | "resources";

export default function Cluster() {
  useTitle("Cluster");
  const namespace = parameter("namespace");
  const answer = useAnswer(`cluster ${namespace}`, (signal) => get<ClusterReport>("ui/api/cluster", { namespace: namespace || undefined }, signal));
  if (answer.error && isNoCluster(answer.error)) {
    return (
      <Empty title="This Spanreel serves no cluster">
        <p>{answer.error.message}</p>
      </Empty>
    );
  }
  if (answer.error && !answer.data) return <Failure error={answer.error} what="The cluster cannot be examined" retry={answer.reload} />;
  if (!answer.data) return <Waiting rows={8} />;
  const report = answer.data;
  const { examination, catch_up: catchUp, collectors, instrumentations } = report;
  const stale = (catchUp?.workloads.length ?? 0) + (catchUp?.crash_loops.length ?? 0);
  const tabs: [Tab, string][] = [
    ["workloads", "Workloads"],
    ...(catchUp ? [["catch-up", `Restarts${stale > 0 ? ` (${count(stale)})` : ""}`] as [Tab, string]] : []),
    ["resources", `Resources${collectors.length + instrumentations.length > 0 ? ` (${count(collectors.length + instrumentations.length)})` : ""}`],
  ];
  const tab = tabs.find(([name]) => name === parameter("tab"))?.[0] ?? "workloads";
  return (
    <div class={answer.loading ? "stack stale" : "stack"}>
      {answer.error && <Failure error={answer.error} what="What is shown is old" retry={answer.reload} />}
      <div class="filter-line">
        <Tabs label="Cluster" tabs={tabs} chosen={tab} choose={(next) => change({ tab: next === "workloads" ? null : next })} />
        <button type="button" class="quiet" onClick={answer.reload} aria-label="Examine again" title="Examine again">
          <Icon name="reload" />
        </button>
      </div>
      {tab === "workloads" && examination && <Workloads report={examination} />}
      {tab === "workloads" && !examination && <Failure error={new ApiError(503, report.examination_problem ?? "no examination")} what="The workloads cannot be examined" retry={answer.reload} />}
      {tab === "catch-up" && catchUp && <CatchUp report={catchUp} />}
      {tab === "resources" && <Resources report={report} />}
    </div>
  );
}

const isNoCluster = (error: ApiError): boolean => error.status === 404 && /serves no cluster/.test(error.message);
