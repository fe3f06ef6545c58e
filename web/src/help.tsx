import { groups, helpShown } from "./keys";
import { Modal } from "./ui";

const shown = (key: string): string => key.replace("Arrow", "").replace("Escape", "Esc").replace("PageDown", "Page ↓").replace("PageUp", "Page ↑");

/** All keys that hold at the moment. */
export function Help() {
  return (
    <Modal title="Keyboard" onClose={() => (helpShown.value = false)}>
      <div class="keys">
        {groups.value.map((group) => (
          <section key={group.title}>
            <h3>{group.title}</h3>
            <dl>
              {group.keys.map((key) => (
                <div key={key.keys}>
                  <dt>
                    {key.keys.split(" / ").map((one) => (
                      <kbd key={one}>{shown(one)}</kbd>
                    ))}
                  </dt>
                  <dd>{key.does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Modal>
  );
}
