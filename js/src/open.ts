// Opening a checkpoint, in the order of READ-001, and of a patch its base.

import type { Checkpoint, OpenOptions, Openable, Source } from './api.js';
import { OpenCheckpoint, checkpointOf } from './checkpoint.js';
import { CkptError, inBase, need } from './errors.js';
import type { Limits } from './limits.js';
import { locate, manifestOf, type Located } from './locating.js';
import { parseManifest } from './manifest.js';
import { sourceOf } from './sources.js';

const PATCHES = 8; // that are read one through another, if nothing else is asked for [PATCH-009]
const SHOWN = 8; // digests in a message
const TOO_LONG = 'more patches would be read one through another than `maxPatches`';

/**
 * Open a checkpoint: its record and manifest are read and checked, and nothing else; of a patch also those of its base.
 *
 * Throws CkptError with a code of SPEC.md section 16; the reason of `options.signal` if that is aborted.
 */
export async function open(from: Openable, options: OpenOptions = {}): Promise<Checkpoint> {
  const source = await sourceOf(from, options);
  return closing(source, async () => openAt(source, await locate(source), options, options.maxPatches ?? PATCHES));
}

/** Close a source where something fails. */
async function closing<T>(source: Pick<Source, 'close'>, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** `left`: how many patches may be read one through another from here. */
async function openAt(source: Source, located: Located, options: OpenOptions, left: number): Promise<OpenCheckpoint> {
  const limits: Limits = { manifest: options.maxManifestBytes ?? 2 ** 30, decoded: options.maxDecodedBytes ?? 2 ** 30 };
  const bytes = await manifestOf(source, located, limits);
  const { record } = located;
  const checkpoint = await checkpointOf(source, record, parseManifest(bytes, record), limits, options.verify ?? true);
  if (checkpoint.patch === null || options.base === undefined) return checkpoint;
  need(left > 0, 'PATCH-009', TOO_LONG, 'limit-exceeded');
  const { base, isOwn } = await baseOf(checkpoint.patch.base, options, left);
  try {
    await checkpoint.take(base, isOwn, options.signal);
  } catch (error) {
    if (isOwn) await base.close();
    throw error;
  }
  return checkpoint;
}

interface Found {
  readonly base: OpenCheckpoint;
  /** Whether it was opened here. */
  readonly isOwn: boolean;
}

/** The checkpoint with a sha256 among those that were given. [PATCH-004] */
async function baseOf(sha256: string, options: OpenOptions, left: number): Promise<Found> {
  const met: string[] = [];
  const failed: CkptError[] = [];
  for (const given of (Array.isArray(options.base) ? options.base : [options.base]) as (Openable | Checkpoint)[]) {
    try {
      const found = await triedAs(given, sha256, options, left);
      if (typeof found !== 'string') return found;
      met.push(found);
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      failed.push(error);
    }
  }
  if (failed[0] !== undefined) throw failed[0];
  const what = `what was given as the base of the patch is another checkpoint: it has the sha256 ${met.slice(0, SHOWN).join(', ')}, and the `
    + `one that the patch was made against ${sha256}`;
  throw new CkptError('wrong-base', `${what} [PATCH-004]`);
}

/** What was given, if it has that sha256; else the one that it has. */
async function triedAs(given: Openable | Checkpoint, sha256: string, options: OpenOptions, left: number): Promise<Found | string> {
  if (given instanceof OpenCheckpoint) {
    if (given.sha256 !== sha256) return given.sha256;
    need(given.chained <= left, 'PATCH-009', TOO_LONG, 'limit-exceeded');
    return { base: given, isOwn: false };
  }
  const source = await sourceOf(given as Openable, options);
  return closing(source, async () => {
    const located = await locate(source);
    if (located.record.sha256 === sha256) {
      return { base: await inBase(source.label, () => openAt(source, located, options, left - 1)), isOwn: true };
    }
    await source.close();
    return located.record.sha256;
  });
}
