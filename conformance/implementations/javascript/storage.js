// The commit record (section 10), the layouts on disk (section 8), and nothing of what is inside.

import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { Fault, need } from './faults.js';

const RECORD = new RegExp(
  '^ckptfmt/(1)\\.(0|[1-9][0-9]{0,2}) (file|packed|loose) manifest=(N)\\+(N) sha256=([0-9a-f]{64}) '
    .replaceAll('N', '0|[1-9][0-9]{0,18}') + 'frame=([0-9a-f]{32}|[0-9a-f]{64}) crc32=([0-9a-f]{8})\\n$');

/** The objects of the checkpoint at a path; `record` is its commit record once that has been found. */
export class Storage {
  constructor(place) {
    this.path = place;
    const temporary = path.normalize(place).replace(/[\\/]+$/, '').endsWith('.ckptfmt-tmp');
    need(!temporary, 'PUB-001', `${place} is the temporary of an unfinished save`, 'temporary');
    const status = system(place, 'not-found', () => fs.statSync(place));
    this.isFolder = status.isDirectory();
    need(this.isFolder || status.isFile(), 'COM-004', 'neither file nor directory', 'not-a-checkpoint');
    if (!this.isFolder) this.file = system(place, 'not-found', () => fs.openSync(place));
  }

  /** The commit record, checked. */
  findRecord() {
    return this.#parse(this.isFolder ? this.#recordOfFolder() : this.#recordOfFile());
  }

  close() {
    if (this.file !== undefined) fs.closeSync(this.file);
    this.file = undefined;
  }

  /** Bytes of an object (the file itself is ''); fewer than `length` only where the object ends [LIM-003]. */
  read(name, offset, length) {
    return this.#with(name, (file) => {
      const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, fs.fstatSync(file).size - offset)));
      let filled = 0;
      for (let count = 1; filled < bytes.length && count > 0; filled += count) {
        count = fs.readSync(file, bytes, filled, bytes.length - filled, offset + filled);
      }
      return bytes.subarray(0, filled);
    });
  }

  size(name) {
    return this.#with(name, (file) => fs.fstatSync(file).size);
  }

  /** Open an object, after making sure that it is a file and no link lies on the way [CHK-007]. */
  #with(name, action) {
    if (!this.isFolder) return system(this.path, 'missing-object', () => action(this.file));
    return system(name, 'missing-object', () => {
      let [place, status] = [this.path];
      for (const segment of name.split('/')) {
        place = path.join(place, segment);
        status = fs.lstatSync(place);
        need(!status.isSymbolicLink(), 'CHK-007', `${name} is or lies behind a symbolic link`, 'linked-object');
      }
      need(status.isFile(), 'READ-005', `${name} is no file`, 'missing-object');
      const file = fs.openSync(place);
      try {
        return action(file);
      } finally {
        fs.closeSync(file);
      }
    });
  }

  #recordOfFolder() {
    try {
      return this.read('COMMIT', 0, 256).toString('latin1');
    } catch (error) {
      need(error.code !== 'missing-object', 'COM-004', 'the directory has no COMMIT', 'not-a-checkpoint');
      throw error;
    }
  }

  #recordOfFile() {
    const tail = this.read('', Math.max(0, this.size('') - 255), 255).toString('latin1');
    const begun = /^PK\x03\x04[^]{26}tensors\/$/.test(this.read('', 0, 38).toString('latin1'));
    const start = [...tail.matchAll(/ckptfmt\/[0-9]/g)].at(-1)?.index;
    need(start !== undefined, 'COM-004', 'there is no commit record', begun ? 'truncated' : 'not-a-checkpoint');
    return tail.slice(start);
  }

  /** The fields of a commit record, given as one char for each byte [COM-001]. */
  #parse(line) {
    const major = /^ckptfmt\/(0|[1-9][0-9]*)\./.exec(line)?.[1];
    need(major !== '0', 'FMT-003', 'a version of the format before 1.0', 'older-format');
    need(major === '1' || major === undefined, 'VER-002', `major version ${major}; 1 is known`, 'newer-format');
    const match = RECORD.exec(line);
    const signed = Buffer.from(line.slice(0, line.indexOf('crc32=')), 'latin1');
    const good = match && line.length <= 255 && zlib.crc32(signed) === parseInt(match[8], 16);
    need(good, 'COM-001', 'the commit record has another form or crc32', 'bad-record');
    const [layout, offset, length] = [match[3], Number(match[4]), Number(match[5])];
    need((layout !== 'file') === this.isFolder, 'LAY-006', `layout \`${layout}\` here`, 'bad-record');
    const fits = this.isFolder ? offset === 0 && length < 2 ** 63 : offset + length <= this.size('') - line.length;
    need(fits, 'COM-002', "the manifest's extent does not fit", 'bad-record');
    const [version, frame] = [[1n, BigInt(match[2])], Buffer.from(match[7], 'hex')];
    return { version, layout, offset, length, sha256: match[6], frame, size: line.length };
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
