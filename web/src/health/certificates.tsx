import type { Health } from "../api";
import { coarse, moment } from "../format";
import { Table } from "../ui";

/** Days before the end from which on it is a warning, and something to act on. */
const WARN_DAYS = 21;
const BAD_DAYS = 7;
const DAY = 86_400;

export function Certificates({ certificates }: { certificates: Health["certificates"] }) {
  if (certificates.length === 0) return null;
  return (
    <section>
      <h2>Certificates</h2>
      <Table columns={["Certificate", "Serves", "Ends"]}>
        {certificates.map((one) => {
          const left = one.expires_in_seconds;
          const tone = left === null ? "warn" : left < BAD_DAYS * DAY ? "bad" : left < WARN_DAYS * DAY ? "warn" : "good";
          return (
            <tr key={one.name}>
              <td>{one.name}</td>
              <td>{one.serves}</td>
              <td>
                <span class={`condition ${tone}`}>{left === null ? (one.problem ?? "unknown") : left <= 0 ? "has ended" : `in ${coarse(left)}`}</span>
                {one.expires !== null && <small> {moment(one.expires * 1000)}</small>}
              </td>
            </tr>
          );
        })}
      </Table>
    </section>
  );
}
