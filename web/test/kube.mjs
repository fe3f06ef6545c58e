// A real Kubernetes control plane on loopback, as the browser tests need it: etcd and kube-apiserver, without controllers and
// without nodes. What a kubelet would write, tests write.
import { execFileSync, spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ADMIN_TOKEN = "admin-of-a-throwaway-cluster";

/** `ports` are three free ones. Who calls ends the `children`. */
export function startKube(directory, [apiPort, etcdPort, etcdPeerPort]) {
  const binaries = execFileSync(fileURLToPath(new URL("../../.ci/kube", import.meta.url)), { encoding: "utf8" }).trim().split("\n").at(-1);
  mkdirSync(directory);
  const file = (name, contents) => {
    writeFileSync(join(directory, name), contents);
    return join(directory, name);
  };
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048, privateKeyEncoding: { type: "pkcs8", format: "pem" }, publicKeyEncoding: { type: "spki", format: "pem" } });
  const etcd = spawn("etcd", [
    "--data-dir", join(directory, "etcd"), "--logger=zap", "--log-level=error",
    `--listen-client-urls=http://127.0.0.1:${etcdPort}`, `--advertise-client-urls=http://127.0.0.1:${etcdPort}`,
    `--listen-peer-urls=http://127.0.0.1:${etcdPeerPort}`, `--initial-advertise-peer-urls=http://127.0.0.1:${etcdPeerPort}`,
    `--initial-cluster=default=http://127.0.0.1:${etcdPeerPort}`,
  ], { stdio: "ignore" });
  const server = spawn(join(binaries, "kube-apiserver"), [
    `--etcd-servers=http://127.0.0.1:${etcdPort}`, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", `--secure-port=${apiPort}`,
    `--cert-dir=${join(directory, "certificates")}`, `--token-auth-file=${file("tokens.csv", `${ADMIN_TOKEN},admin,admin,system:masters\n`)}`,
    "--service-account-issuer=https://kubernetes.default.svc", `--service-account-key-file=${file("account.pub", publicKey)}`, `--service-account-signing-key-file=${file("account.key", privateKey)}`,
    "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=127.96.0.0/16",
    // The `kubernetes` Endpoints would have to hold a loopback address, which validation refuses.
    "--endpoint-reconciler-type=none",
  ], { stdio: "ignore" });
  const kubeconfig = file("kubeconfig", JSON.stringify({
    apiVersion: "v1", kind: "Config", "current-context": "tests",
    clusters: [{ name: "tests", cluster: { server: `https://127.0.0.1:${apiPort}`, "insecure-skip-tls-verify": true } }],
    users: [{ name: "admin", user: { token: ADMIN_TOKEN } }],
    contexts: [{ name: "tests", context: { cluster: "tests", user: "admin" } }],
  }));

  /** What the API server answers, with its `code`; 0 if it does not. */
  const ask = (method, path, body, type = "application/json") =>
    new Promise((done) => {
      const asked = request({ host: "127.0.0.1", port: apiPort, path, method, rejectUnauthorized: false, headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": type } }, async (answer) => {
        let text = "";
        for await (const chunk of answer.setEncoding("utf8")) text += chunk;
        done({ code: answer.statusCode, text });
      });
      asked.on("error", () => done({ code: 0, text: "" }));
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  return {
    children: [server, etcd],
    kubeconfig,
    ready: async () => (await ask("GET", "/readyz")).code === 200,
    /** The object as it was stored; null if it was refused. */
    async create(collection, object) {
      const { code, text } = await ask("POST", collection, object);
      return code === 201 ? JSON.parse(text) : null;
    },
    /** What a kubelet writes once the container runs. */
    async run(namespace, pod, address) {
      const status = { phase: "Running", podIP: address, podIPs: [{ ip: address }], containerStatuses: [{ name: "app", ready: true, started: true, restartCount: 0, image: "app", imageID: "app", state: { running: { startedAt: new Date().toISOString().replace(/\.\d+/, "") } } }] };
      return (await ask("PATCH", `/api/v1/namespaces/${namespace}/pods/${pod}/status`, { status }, "application/merge-patch+json")).code === 200;
    },
  };
}
