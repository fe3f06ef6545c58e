import { Component, createElement } from "preact";
import type { ComponentType, FunctionComponent } from "preact";

/** Draws anew only if one of the properties is another one. */
export function memo<P extends object>(draw: FunctionComponent<P>): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      return (Object.keys(next) as (keyof P)[]).some((key) => next[key] !== this.props[key as keyof typeof this.props]);
    }

    override render() {
      return createElement(draw, this.props as P);
    }
  };
}
