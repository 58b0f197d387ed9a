// The commit record (section 10).

import { fromHex, isEqual, latin1 } from './bytes.js';
import { digestOf } from './digests.js';
import { CkptError, need } from './errors.js';

const NUMBER = '0|[1-9][0-9]{0,18}';
const RECORD = new RegExp(
  `^ckptfmt/1\\.(0|[1-9][0-9]{0,2}) (file|packed|loose) manifest=(${NUMBER})\\+(${NUMBER}) sha256=([0-9a-f]{64}) `
  + 'frame=([0-9a-f]{32}|[0-9a-f]{64}) crc32=([0-9a-f]{8})\\n$');
const END = 2 ** 63;

export const RECORD_SIZE = 255; // bytes at most [COM-001]

export type Layout = 'file' | 'packed' | 'loose';

export interface Record {
  readonly minor: number;
  readonly layout: Layout;
  /** Of the manifest. */
  readonly offset: number;
  readonly length: number;
  readonly sha256: string;
  readonly frame: Uint8Array;
  /** Bytes of the record itself. */
  readonly size: number;
}

/** The record at the end of a file: from the last `ckptfmt/` and a digit; undefined if there is none. [COM-004] */
export function recordIn(tail: Uint8Array): Uint8Array | undefined {
  const start = [...latin1(tail.subarray(-RECORD_SIZE)).matchAll(/ckptfmt\/[0-9]/g)].at(-1)?.index;
  return start === undefined ? undefined : tail.subarray(-RECORD_SIZE).subarray(start);
}

/** Whether a file begins as one whose save was cut off. [COM-004] */
export function isBegun(head: Uint8Array): boolean {
  return /^PK\x03\x04[^]{26}tensors\//.test(latin1(head));
}

/** The fields of a record, checked; `size` is that of the file that it ends, undefined in a directory. */
export async function parseRecord(bytes: Uint8Array, size: number | undefined): Promise<Record> {
  const line = latin1(bytes);
  const major = /^ckptfmt\/(0|[1-9][0-9]*)\./.exec(line)?.[1];
  need(major !== '0', 'FMT-003', 'a version of the format before 1.0', 'older-format');
  need(major === '1' || major === undefined, 'VER-002', `major version ${major?.slice(0, 20)}; 1 is known`, 'newer-format');
  const match = RECORD.exec(line);
  const crc32 = await digestOf('crc32');
  const good = match && bytes.length <= RECORD_SIZE
    && isEqual(crc32(bytes.subarray(0, line.indexOf('crc32='))), fromHex(match[7]!));
  need(good, 'COM-001', 'the commit record has another form or crc32', 'bad-record');
  const [, minor, layout, start, count, sha256, frame] = match as unknown as string[];
  const [offset, length] = [Number(start), Number(count)];
  need((layout === 'file') === (size !== undefined), 'LAY-006', `layout \`${layout}\` is not what is here`, 'bad-record');
  const fits = size === undefined ? offset === 0 && length < END : offset + length <= size - bytes.length;
  need(fits, 'COM-002', "the manifest's extent does not fit", 'bad-record');
  return {
    minor: Number(minor), layout: layout as Layout, offset, length, sha256: sha256!, frame: fromHex(frame!), size: bytes.length,
  };
}

export function noCheckpoint(label: string, begun: boolean): CkptError {
  return begun
    ? new CkptError('truncated', `${label} begins as a checkpoint and has no commit record: it was cut off [COM-004]`)
    : new CkptError('not-a-checkpoint', `${label} has no commit record [COM-004]`);
}
