// Opening a checkpoint, in the order of READ-001.

import type { Checkpoint, OpenOptions, Openable, Source } from './api.js';
import { toHex } from './bytes.js';
import { checkpointOf } from './checkpoint.js';
import { digestOf } from './digests.js';
import { CkptError, need } from './errors.js';
import { checkManifest, type Limits } from './limits.js';
import { parseManifest } from './manifest.js';
import { RECORD_SIZE, isBegun, noCheckpoint, parseRecord, recordIn, type Record } from './record.js';
import { sourceOf } from './sources.js';

const HEAD = 38; // bytes at which a file of a canonical writer can be told

/**
 * Open a checkpoint: its record and manifest are read and checked, and nothing else.
 *
 * Throws CkptError with a code of SPEC.md section 16; the reason of `options.signal` if that is aborted.
 */
export async function open(from: Openable, options: OpenOptions = {}): Promise<Checkpoint> {
  const limits: Limits = { manifest: options.maxManifestBytes ?? 2 ** 30, decoded: options.maxDecodedBytes ?? 2 ** 30 };
  const source = await sourceOf(from, options);
  try {
    const { record, tail } = source.kind === 'file' ? await recordOfFile(source) : await recordOfDirectory(source);
    const bytes = await manifestOf(source, record, tail, limits);
    return await checkpointOf(source, record, parseManifest(bytes, record), limits, options.verify ?? true);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The end of a file, as it has been read. */
interface Tail {
  readonly bytes: Uint8Array;
  readonly size: number;
}

interface Found {
  readonly record: Record;
  readonly tail: Tail | undefined;
}

async function recordOfFile(source: Source): Promise<Found> {
  const tail = await source.tail('', Math.max(RECORD_SIZE, source.readAhead));
  const bytes = recordIn(tail.bytes);
  if (bytes === undefined) throw noCheckpoint(source.label, isBegun(await source.read('', 0, Math.min(HEAD, tail.size))));
  return { record: await parseRecord(bytes, tail.size), tail };
}

async function recordOfDirectory(source: Source): Promise<Found> {
  const bytes = await source.read('COMMIT', 0, RECORD_SIZE + 1).catch((error: unknown) => {
    const none = error instanceof CkptError && error.code === 'missing-object';
    throw none ? new CkptError('not-a-checkpoint', `${source.label} has no COMMIT [COM-004]`) : error;
  });
  return { record: await parseRecord(bytes, undefined), tail: undefined };
}

/** The bytes of the manifest, of which the tail may have all. [COM-003] */
async function manifestOf(source: Source, record: Record, tail: Tail | undefined, limits: Limits): Promise<Uint8Array> {
  const { offset, length, sha256 } = record;
  checkManifest(length, limits.manifest, 'the manifest');
  const begin = tail === undefined ? 0 : tail.size - tail.bytes.length;
  const bytes = tail === undefined ? await source.read('manifest.msgpack', 0, length + 1)
    : offset >= begin ? tail.bytes.subarray(offset - begin, offset - begin + length) : await source.read('', offset, length);
  need(bytes.length === length, 'COM-003', 'the manifest has another length', 'manifest-digest');
  need(toHex((await digestOf('sha256'))(bytes)) === sha256, 'COM-003', 'the manifest has another sha256', 'manifest-digest');
  return bytes;
}
