// From what a caller has to a source of bytes.

import type { Objects, OpenOptions, Openable, Source } from './api.js';
import { CkptError, need } from './errors.js';
import { openHttp } from './http.js';
import { BytesSource, ObjectsSource } from './memory.js';
import { openDisk } from '#disk';

const SCHEME = /^([a-z][a-z0-9+.-]+):/i; // of two letters or more: C: is a drive
const TEMPORARY = /\.ckptfmt-tmp[\\/]*$/;

export async function sourceOf(from: Openable, options: OpenOptions): Promise<Source> {
  options.signal?.throwIfAborted();
  if (typeof from === 'string' || from instanceof URL) return sourceAt(String(from), from instanceof URL, options);
  if (from instanceof ArrayBuffer) return new BytesSource(new Uint8Array(from), 'these bytes');
  if (from instanceof Uint8Array) return new BytesSource(from, 'these bytes');
  if (from instanceof Blob) {
    const name = 'name' in from && typeof from.name === 'string' ? from.name : 'this blob';
    checkName(name);
    return new BytesSource(from, name);
  }
  if (isSource(from)) return from;
  if (from instanceof Map) return new ObjectsSource(from as Objects);
  throw new TypeError('open takes a path, a URL, a Blob, bytes, a Map of objects or a Source');
}

async function sourceAt(place: string, isUrl: boolean, options: OpenOptions): Promise<Source> {
  const scheme = SCHEME.exec(place)?.[1]?.toLowerCase();
  if (scheme === undefined && !isUrl) {
    const page = globalThis.document?.baseURI;
    checkName(place);
    return page === undefined ? openDisk(place) : openHttp(new URL(place, page), options);
  }
  const url = new URL(place);
  if (scheme === 'http' || scheme === 'https') {
    checkName(url.pathname);
    return openHttp(url, options);
  }
  if (scheme === 'file') {
    checkName(url.pathname);
    return openDisk(url);
  }
  if (scheme === 'blob' || scheme === 'data') return new BytesSource(await (await fetch(url)).blob(), `this ${scheme}: URL`);
  throw new CkptError('not-found', `${scheme}: is not http:, https:, file:, blob: or data:`);
}

/** A save that is not finished has no name but that of its temporary. [PUB-021] */
function checkName(name: string): void {
  need(!TEMPORARY.test(name), 'PUB-021', `${name} is the temporary of an unfinished save`, 'temporary');
}

function isSource(from: object): from is Source {
  return 'kind' in from && 'read' in from && 'tail' in from;
}
