// What decoders throw.

/** A chunk that does not decode; what the message says is told with the chunk's place. */
export class Damaged extends Error {}

export function demand(holds: unknown, what: string): asserts holds {
  if (!holds) throw new Damaged(what);
}
