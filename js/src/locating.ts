// Where a checkpoint is in its source: the commit record, and the manifest that it leads to (READ-001).

import type { Source } from './api.js';
import { toHex } from './bytes.js';
import { digestOf } from './digests.js';
import { CkptError, need } from './errors.js';
import { checkManifest, type Limits } from './limits.js';
import { RECORD_SIZE, isBegun, noCheckpoint, parseRecord, recordIn, type Record } from './record.js';

const HEAD = 38; // bytes at which a file of a canonical writer can be told

/** The end of a file, as it has been read. */
interface Tail {
  readonly bytes: Uint8Array;
  readonly size: number;
}

export interface Located {
  readonly record: Record;
  readonly tail: Tail | undefined;
}

/** The commit record of what is at a source. */
export async function locate(source: Source): Promise<Located> {
  return source.kind === 'file' ? inFile(source) : inDirectory(source);
}

async function inFile(source: Source): Promise<Located> {
  const tail = await source.tail('', Math.max(RECORD_SIZE, source.readAhead));
  const bytes = recordIn(tail.bytes);
  if (bytes === undefined) throw noCheckpoint(source.label, isBegun(await source.read('', 0, Math.min(HEAD, tail.size))));
  return { record: await parseRecord(bytes, tail.size), tail };
}

async function inDirectory(source: Source): Promise<Located> {
  const bytes = await source.read('COMMIT', 0, RECORD_SIZE + 1).catch((error: unknown) => {
    const none = error instanceof CkptError && error.code === 'missing-object';
    throw none ? new CkptError('not-a-checkpoint', `${source.label} has no COMMIT [COM-004]`) : error;
  });
  return { record: await parseRecord(bytes, undefined), tail: undefined };
}

/** The bytes of the manifest, of which the tail may have all. [COM-003] */
export async function manifestOf(source: Source, { record, tail }: Located, limits: Limits): Promise<Uint8Array> {
  const { offset, length, sha256 } = record;
  checkManifest(length, limits.manifest, 'the manifest');
  const begin = tail === undefined ? 0 : tail.size - tail.bytes.length;
  const bytes = tail === undefined ? await source.read('manifest.msgpack', 0, length + 1)
    : offset >= begin ? tail.bytes.subarray(offset - begin, offset - begin + length) : await source.read('', offset, length);
  need(bytes.length === length, 'COM-003', 'the manifest has another length', 'manifest-digest');
  need(toHex((await digestOf('sha256'))(bytes)) === sha256, 'COM-003', 'the manifest has another sha256', 'manifest-digest');
  return bytes;
}
