// Files and directories, in Node.

import { constants } from 'node:fs';
import { lstat, open, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Source } from './api.js';
import { CkptError, need, type Code } from './errors.js';
import { allocate } from './limits.js';

const READ_AHEAD = 4096; // bytes at the end of a file
const LITTLE = 4 * 2 ** 20; // bytes that are allocated without a look at the size of the file
const GONE = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ERR_INVALID_ARG_VALUE'];
const NO_LINK = constants.O_NOFOLLOW ?? 0;

/** The checkpoint at a path. */
export async function openDisk(place: string | URL): Promise<Source> {
  const path = typeof place === 'string' ? place : fileURLToPath(place);
  return system(path, 'not-found', async () => {
    const status = await stat(path);
    if (status.isDirectory()) return new DirectorySource(path);
    need(status.isFile(), 'COM-004', `${path} is neither file nor directory`, 'not-a-checkpoint');
    return new FileSource(path, await open(path));
  });
}

class FileSource implements Source {
  readonly kind = 'file';
  readonly readAhead = READ_AHEAD;

  constructor(readonly label: string, readonly file: FileHandle) {}

  size(): Promise<number> {
    return system(this.label, 'missing-object', async () => (await this.file.stat()).size);
  }

  read(_: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    signal?.throwIfAborted();
    return system(this.label, 'missing-object', () => bytesOf(this.file, offset, length));
  }

  async tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    const size = await this.size();
    return { bytes: await this.read(object, Math.max(0, size - length), length, signal), size };
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

class DirectorySource implements Source {
  readonly kind = 'directory';
  readonly readAhead = READ_AHEAD;
  #kept: { readonly object: string; readonly file: FileHandle } | undefined;

  constructor(readonly label: string) {}

  size(object: string): Promise<number> {
    return this.#with(object, async (file) => (await file.stat()).size);
  }

  read(object: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    signal?.throwIfAborted();
    return this.#with(object, (file) => bytesOf(file, offset, length));
  }

  async tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    const size = await this.size(object);
    return { bytes: await this.read(object, Math.max(0, size - length), length, signal), size };
  }

  async close(): Promise<void> {
    await this.#kept?.file.close();
    this.#kept = undefined;
  }

  /** Do something with an object. The one used last stays open, unless another is in use: packs are read again and again. */
  #with<T>(object: string, action: (file: FileHandle) => Promise<T>): Promise<T> {
    return system(object, 'missing-object', async () => {
      const own = this.#kept?.object === object ? this.#kept : { object, file: await this.#open(object) };
      if (own === this.#kept) this.#kept = undefined; // nobody else closes it meanwhile
      try {
        return await action(own.file);
      } finally {
        if (this.#kept === undefined) this.#kept = own;
        else await own.file.close();
      }
    });
  }

  /** Open an object, after making sure that it is a file and no link lies on the way. [CHK-007] */
  async #open(object: string): Promise<FileHandle> {
    let path = this.label;
    let isFile = false;
    for (const segment of object.split('/')) {
      path = join(path, segment);
      const status = await lstat(path);
      const what = `${object} is a symbolic link, or lies behind one [CHK-007]`;
      if (status.isSymbolicLink()) throw new CkptError('linked-object', what, { object });
      isFile = status.isFile();
    }
    if (!isFile) throw new CkptError('missing-object', `${object} is no file [READ-005]`, { object });
    return open(path, constants.O_RDONLY | NO_LINK);
  }
}

/** Bytes of a file; fewer than `length` only where it ends, so that no more is allocated than is there. [LIM-003] */
async function bytesOf(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const there = length <= LITTLE ? length : Math.max(0, Math.min(length, (await file.stat()).size - offset));
  const bytes = allocate(there);
  let filled = 0;
  while (filled < there) {
    const { bytesRead } = await file.read(bytes, filled, there - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

/** Turn the system's errors into faults; `absent` is the code for what is not there. */
async function system<T>(name: string, absent: Code, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof CkptError || code === undefined) throw error;
    const found = GONE.includes(code) ? absent : code === 'EACCES' || code === 'EPERM' ? 'permission' : 'io';
    throw new CkptError(found, (error as Error).message, absent === 'not-found' ? {} : { object: name }, { cause: error });
  }
}
