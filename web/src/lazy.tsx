// Pages that the first screen does not need come when they are opened.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ApiError } from "./api";
import { Failure, Waiting } from "./ui";

export function lazy(load: () => Promise<{ default: ComponentType }>): ComponentType {
  let loaded: ComponentType | null = null;
  return function Lazy() {
    const [page, setPage] = useState<{ component: ComponentType } | null>(loaded ? { component: loaded } : null);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (page) return;
      load().then(
        (module) => {
          loaded = module.default;
          setPage({ component: module.default });
        },
        () => setFailed(true),
      );
    }, []);
    if (failed) {
      const error = new ApiError(0, "This part of the page could not be loaded. Spanreel may have been updated or stopped meanwhile.");
      return <Failure error={error} what="Not loaded" retry={() => location.reload()} />;
    }
    if (!page) return <Waiting />;
    const Page = page.component;
    return <Page />;
  };
}
