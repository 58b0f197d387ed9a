// The commit record (section 10), the layouts on disk (section 8), and nothing of what is inside.

import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { Fault, need } from './faults.js';

const RECORD = new RegExp(
  '^ckptfmt/(S)\\.(S) (file|packed|loose) manifest=(N)\\+(N) sha256=([0-9a-f]{64}) '
    .replaceAll('S', '0|[1-9][0-9]{0,2}').replaceAll('N', '0|[1-9][0-9]{0,18}')
  + 'frame=([0-9a-f]{32}|[0-9a-f]{64}) crc32=([0-9a-f]{8})\\n$');
const LONGEST_RECORD = 255;

/** The fields of a commit record, given as one char for each byte [COM-001]. */
function parseRecord(line) {
  const refuse = (holds, what) => need(holds, 'COM-001', what, 'bad-record');
  const version = /^ckptfmt\/(0|[1-9][0-9]*)\./.exec(line);
  refuse(version, 'the commit record does not begin with a version');
  need(version[1] !== '0', 'FMT-003', 'a version of the format before 1.0', 'older-format');
  need(version[1] === '1', 'VER-002', `major version ${version[1]}; 1 is known`, 'newer-format');
  const match = RECORD.exec(line);
  refuse(match && line.length <= LONGEST_RECORD, 'the commit record has another form');
  const [, major, minor, layout, offset, length, sha256, frame, crc32] = match;
  const signed = Buffer.from(line.slice(0, line.indexOf('crc32=')), 'latin1');
  refuse(zlib.crc32(signed) === parseInt(crc32, 16), "the commit record's crc32 is another");
  refuse([offset, length].every((text) => BigInt(text) < 1n << 63n), 'a number is 2⁶³ or more');
  return {
    version: [BigInt(major), BigInt(minor)], layout, offset: Number(offset), length: Number(length),
    sha256, frame: Buffer.from(frame, 'hex'), size: line.length,
  };
}

/** The objects of the checkpoint at a path, after its commit record has been found valid. */
export class Storage {
  constructor(place) {
    this.path = place;
    need(!path.normalize(place).replace(/[\\/]+$/, '').endsWith('.ckptfmt-tmp'), 'PUB-001',
      `${place} is the temporary of an unfinished save`, 'temporary');
    const status = system(place, 'not-found', () => fs.statSync(place));
    this.isFolder = status.isDirectory();
    need(this.isFolder || status.isFile(), 'COM-004', 'neither file nor directory', 'not-a-checkpoint');
    if (!this.isFolder) this.file = system(place, 'not-found', () => fs.openSync(place));
    try {
      this.record = this.isFolder ? this.#recordOfFolder() : this.#recordOfFile();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close() {
    if (this.file !== undefined) fs.closeSync(this.file);
    this.file = undefined;
  }

  /** Bytes of an object (the file itself is ''); fewer than `length` only where the object ends [LIM-003]. */
  read(name, offset, length) {
    return system(name || this.path, 'missing-object', () => {
      const file = this.isFolder ? fs.openSync(this.#stepTo(name)) : this.file;
      try {
        const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, fs.fstatSync(file).size - offset)));
        let filled = 0;
        for (let count = 1; filled < bytes.length && count > 0; filled += count) {
          count = fs.readSync(file, bytes, filled, bytes.length - filled, offset + filled);
        }
        return bytes.subarray(0, filled);
      } finally {
        if (this.isFolder) fs.closeSync(file);
      }
    });
  }

  size(name) {
    return system(name || this.path, 'missing-object',
      () => (this.isFolder ? fs.lstatSync(this.#stepTo(name)) : fs.fstatSync(this.file)).size);
  }

  /** The system's path of an object, after making sure that no link lies on the way [CHK-007]. */
  #stepTo(name) {
    let place = this.path;
    let status;
    for (const segment of name.split('/')) {
      place = path.join(place, segment);
      status = fs.lstatSync(place);
      need(!status.isSymbolicLink(), 'CHK-007', `${name} is or lies behind a symbolic link`, 'linked-object');
    }
    need(status.isFile(), 'READ-005', `${name} is no file`, 'missing-object');
    return place;
  }

  #recordOfFolder() {
    let line;
    try {
      line = this.read('COMMIT', 0, LONGEST_RECORD + 1).toString('latin1');
    } catch (error) {
      need(error.code !== 'missing-object', 'COM-004', 'the directory has no COMMIT', 'not-a-checkpoint');
      throw error;
    }
    const record = parseRecord(line);
    need(record.layout !== 'file', 'LAY-006', 'layout `file` in a directory', 'bad-record');
    need(record.offset === 0, 'COM-002', 'the manifest of a directory begins at 0', 'bad-record');
    return record;
  }

  #recordOfFile() {
    const size = this.size('');
    const tail = this.read('', Math.max(0, size - LONGEST_RECORD), LONGEST_RECORD).toString('latin1');
    const starts = [...tail.matchAll(/ckptfmt\/[0-9]/g)];
    if (starts.length === 0) {
      const begun = /^PK\x03\x04[^]{26}tensors\/$/.test(this.read('', 0, 38).toString('latin1'));
      need(!begun, 'COM-004', 'begins like a checkpoint and has no commit record', 'truncated');
      throw new Fault('not-a-checkpoint', 'there is no commit record [COM-004]');
    }
    const line = tail.slice(starts.at(-1).index);
    const record = parseRecord(line);
    need(record.layout === 'file', 'LAY-006', `layout \`${record.layout}\` in a file`, 'bad-record');
    const fits = record.offset + record.length <= size - line.length;
    need(fits, 'COM-002', "the manifest's extent does not fit into the file", 'bad-record');
    return record;
  }
}

/** Turn the system's errors into faults; `absent` is the code for what is not there. */
function system(name, absent, action) {
  try {
    return action();
  } catch (error) {
    if (error.syscall === undefined) throw error;
    const gone = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].includes(error.code);
    const denied = ['EACCES', 'EPERM'].includes(error.code);
    throw new Fault(gone ? absent : denied ? 'permission' : 'io', error.message, { object: name });
  }
}
