declare module "virtual-saved-page?url" {
  /** The address of the page that a trace is saved in. */
  const address: string;
  export default address;
}
