// Checkpoints behind URLs, by range requests: a file, or a directory whose objects lie below its URL.

import type { OpenOptions, Source } from './api.js';
import { CkptError, type Code } from './errors.js';
import { allocate } from './limits.js';

const READ_AHEAD = 128 * 1024; // bytes of the first request: the manifest is often among them
const WHOLE = 32 * 2 ** 20;
const AT_ONCE = 6; // requests, as browsers allow one host
const TRIES = 3;
const PAUSE = 200; // milliseconds before the second try, twice that before the third
const PASSING = [408, 425, 429, 500, 502, 503, 504];
const CORS = 'in a browser it may be that the server does not allow this page to read from it (Access-Control-Allow-Origin)';

/** A file if there is one; a directory if its URL ends in `/`, or if there is a COMMIT below it. */
export async function openHttp(url: URL, options: OpenOptions): Promise<Source> {
  const directory = new HttpSource('directory', url, options);
  if (url.pathname.endsWith('/')) return directory;
  const file = new HttpSource('file', url, options);
  try {
    await file.tail('', READ_AHEAD);
    if (!file.isListed) return file;
  } catch (error) {
    if (!(error instanceof CkptError) || (error.code !== 'missing-object' && error.code !== 'permission')) throw error;
    const found = await directory.read('COMMIT', 0, 256).then(() => true, () => false);
    if (!found) throw error.code === 'permission' ? error : new CkptError('not-found', `nothing is at ${file.label}`, {}, { cause: error });
  }
  return directory;
}

/** What tells whether an object is still the same. */
interface Version {
  readonly etag: string | null;
  readonly modified: string | null;
  readonly size: number | undefined;
}

/** What is known of an object. */
interface Known {
  version?: Version;
  size?: number;
  /** Bytes that are at hand, from `start` to the end. */
  end?: { start: number; bytes: Uint8Array };
}

class HttpSource implements Source {
  readonly readAhead = READ_AHEAD;
  /** Whether the server has led from the URL of a file to that of a directory. */
  isListed = false;
  readonly #known = new Map<string, Known>();
  readonly #gate = new Gate(AT_ONCE);

  constructor(readonly kind: 'file' | 'directory', readonly url: URL, readonly options: OpenOptions) {}

  get label(): string {
    return `${this.url.origin}${this.url.pathname}`; // without what may be secret in it
  }

  async size(object: string, signal?: AbortSignal): Promise<number> {
    const known = this.#knownOf(object);
    return known.size ?? (await this.#head(object, signal)).size;
  }

  async read(object: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const known = this.#knownOf(object);
    const wanted = known.size === undefined ? length : Math.max(0, Math.min(length, known.size - offset));
    if (wanted === 0) return new Uint8Array(0);
    const { end } = known;
    if (end !== undefined && offset >= end.start) return end.bytes.subarray(offset - end.start, offset - end.start + wanted);
    return (await this.#range(object, `${offset}-${offset + wanted - 1}`, offset, wanted, signal)).bytes;
  }

  async tail(object: string, length: number, signal?: AbortSignal): Promise<{ bytes: Uint8Array; size: number }> {
    const known = this.#knownOf(object);
    if (known.end === undefined) {
      if (known.size === undefined && this.#isForeign) await this.#head(object, signal).catch(() => undefined); // which needs no leave
      if (known.size === undefined) await this.#suffix(object, length, signal);
      const size = known.size ?? (await this.#head(object, signal)).size;
      const start = Math.max(0, size - length);
      if (known.end === undefined) known.end = { start, bytes: await this.read(object, start, size - start, signal) };
    }
    const { start, bytes } = known.end!;
    return { bytes, size: start + bytes.length };
  }

  async close(): Promise<void> {
    this.#known.clear();
  }

  /** Whether a page of another origin asks: a suffix range then takes a preflight, which many servers refuse. */
  get #isForeign(): boolean {
    const { location } = globalThis;
    return location !== undefined && location.origin !== this.url.origin;
  }

  #knownOf(object: string): Known {
    let known = this.#known.get(object);
    if (known === undefined) this.#known.set(object, known = {});
    return known;
  }

  #urlOf(object: string): URL {
    const url = new URL(this.url);
    if (object !== '') url.pathname = `${url.pathname.replace(/\/$/, '')}/${object}`;
    return url;
  }

  /** The last bytes, and with them the size. */
  async #suffix(object: string, length: number, signal?: AbortSignal): Promise<void> {
    const known = this.#knownOf(object);
    const { bytes, start } = await this.#range(object, `-${length}`, undefined, length, signal);
    if (start !== undefined) known.end ??= { start, bytes };
  }

  async #head(object: string, signal?: AbortSignal): Promise<{ size: number }> {
    return this.#gate.pass(async () => {
      const response = await this.#ask(object, 'HEAD', undefined, signal);
      this.#checkStatus(response, object);
      const length = response.headers.get('content-length');
      const size = length === null ? NaN : Number(length);
      const needed = 'it has to give Content-Length to HEAD, or Content-Range with a range '
        + '(a page of another origin also needs Access-Control-Expose-Headers: Content-Range)';
      if (!Number.isSafeInteger(size)) throw this.#fault('io', `the server does not say how long it is: ${needed}`, object);
      this.#checkVersion(object, response, size);
      return { size };
    });
  }

  /** A range of an object: where it begins, if the server says so, and its bytes, fewer than `length` where the object ends. */
  async #range(
    object: string, range: string, offset: number | undefined, length: number, signal?: AbortSignal,
  ): Promise<{ bytes: Uint8Array; start: number | undefined }> {
    return this.#gate.pass(async () => {
      const response = await this.#ask(object, 'GET', `bytes=${range}`, signal);
      if (response.status === 416 && (object === '' || !isList(response))) return this.#beyond(object, response);
      this.#checkStatus(response, object);
      if (response.status === 200) return this.#whole(object, response, offset, length, signal);
      const encoding = response.headers.get('content-encoding');
      if (encoding !== null && encoding !== 'identity') {
        throw this.#fault('io', `the server sends ranges of a compressed form (${encoding})`, object);
      }
      const [start, end, size] = rangeOf(response.headers.get('content-range'));
      this.#checkVersion(object, response, size);
      const right = start === undefined || (offset === undefined ? size !== undefined && end! + 1 === size : start === offset);
      const count = start === undefined ? undefined : end! + 1 - start;
      if (!right || (count !== undefined && (count > length || count < 1))) {
        await response.body?.cancel();
        throw this.#fault('io', `the server sent bytes ${start}-${end} where ${range} were asked for`, object);
      }
      const bytes = await this.#body(object, response, count ?? length, count !== undefined, signal);
      return { bytes, start: start ?? offset };
    });
  }

  /** A range that begins where the object ends, or after it. */
  async #beyond(object: string, response: Response): Promise<{ bytes: Uint8Array; start: number | undefined }> {
    await response.body?.cancel();
    const size = /^bytes \*\/([0-9]+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
    if (size !== undefined) this.#checkVersion(object, response, Number(size));
    return { bytes: new Uint8Array(0), start: size === undefined ? undefined : Number(size) };
  }

  /** A server without ranges sends all of it: that is taken where it is little, or no more than was asked for. */
  async #whole(
    object: string, response: Response, offset: number | undefined, length: number, signal?: AbortSignal,
  ): Promise<{ bytes: Uint8Array; start: number | undefined }> {
    const limit = this.options.maxWholeBytes ?? WHOLE;
    const known = this.#knownOf(object);
    const declared = response.headers.get('content-length');
    const isEncoded = response.headers.get('content-encoding') !== null;
    const size = declared === null || isEncoded ? undefined : Number(declared);
    if (offset === undefined && size !== undefined && size > limit && known.version === undefined) {
      await response.body?.cancel(); // it may know ranges that have a beginning
      this.#checkVersion(object, response, size);
      return { bytes: new Uint8Array(0), start: undefined };
    }
    if (size === undefined || size > limit) {
      await response.body?.cancel();
      const much = `${size === undefined ? 'all' : size} of it, which is more than maxWholeBytes (${limit})`;
      throw this.#fault('io', `the server has no range requests and would send ${much}`, object);
    }
    const bytes = await this.#body(object, response, size, true, signal);
    this.#checkVersion(object, response, size);
    known.end = { start: 0, bytes };
    if (offset === undefined) return { bytes, start: 0 };
    return { bytes: bytes.subarray(offset, offset + length), start: offset };
  }

  /** The bytes of an answer; never more than `length`, and as many if that `isExact`. */
  async #body(object: string, response: Response, length: number, isExact: boolean, signal?: AbortSignal): Promise<Uint8Array> {
    const bytes = allocate(length);
    const reader = response.body?.getReader();
    let filled = 0;
    try {
      for (;;) {
        const { value, done } = await reader?.read() ?? { value: undefined, done: true };
        if (done || value === undefined) break;
        if (filled + value.length > length) {
          await reader?.cancel();
          throw this.#fault('io', `the server sent more than the ${length} bytes that it was asked for`, object);
        }
        bytes.set(value, filled);
        filled += value.length;
      }
    } catch (error) {
      signal?.throwIfAborted();
      this.options.signal?.throwIfAborted();
      if (error instanceof CkptError) throw error;
      throw this.#fault('io', `the connection broke after ${filled} of ${length} bytes`, object, error);
    }
    if (isExact && filled < length) throw this.#fault('io', `the answer ended after ${filled} of ${length} bytes`, object);
    return bytes.subarray(0, filled);
  }

  /** One request, and another try of what may pass. */
  async #ask(object: string, method: 'GET' | 'HEAD', range: string | undefined, signal?: AbortSignal): Promise<Response> {
    const url = this.#urlOf(object);
    const { fetch = globalThis.fetch, headers = {}, onRequest } = this.options;
    const signals = [signal, this.options.signal].filter((one) => one !== undefined);
    const init: RequestInit = { method, headers: { ...headers, ...(range !== undefined && { range }) }, signal: any(signals) };
    for (let attempt = 1; ; attempt++) {
      signals.forEach((one) => one.throwIfAborted());
      let fault: CkptError | undefined;
      try {
        const response = await fetch(url, init);
        onRequest?.({ url: String(url), method, range, status: response.status });
        this.isListed ||= this.kind === 'file' && isList(response);
        if (!PASSING.includes(response.status) || attempt === TRIES) return response;
        await response.body?.cancel();
      } catch (error) {
        signals.forEach((one) => one.throwIfAborted());
        fault = this.#fault('io', `${method} failed: ${String(error)}; ${CORS}`, object, error);
      }
      if (fault !== undefined && attempt === TRIES) throw fault;
      await pause(PAUSE * 2 ** (attempt - 1), any(signals));
    }
  }

  #checkStatus(response: Response, object: string): void {
    const { status } = response;
    const leads = object !== '' && isList(response); // [READ-005]
    if (!leads && (status === 200 || status === 206)) return;
    void response.body?.cancel();
    if (leads) throw this.#fault('missing-object', 'the server has a directory there', object);
    const code: Code = status === 404 || status === 410 ? 'missing-object' : status === 401 || status === 403 ? 'permission' : 'io';
    throw this.#fault(code, `the server answered ${status} ${response.statusText}`.trimEnd(), object);
  }

  /** Each answer has to be of the same version of an object as the first. */
  #checkVersion(object: string, response: Response, size: number | undefined): void {
    const known = this.#knownOf(object);
    const found = { etag: response.headers.get('etag'), modified: response.headers.get('last-modified'), size };
    if (known.version === undefined) known.version = found;
    const first = known.version;
    const differs = (one: unknown, two: unknown): boolean => one !== null && two !== null && one !== undefined
      && two !== undefined && one !== two;
    const changed = differs(first.etag, found.etag) || differs(first.modified, found.modified) || differs(known.size, size);
    if (changed) {
      void response.body?.cancel();
      throw this.#fault('io', 'it was replaced while it was read: open it again', object);
    }
    if (size !== undefined) known.size ??= size;
  }

  #fault(code: Code, message: string, object: string, cause?: unknown): CkptError {
    const { origin, pathname } = this.#urlOf(object);
    return new CkptError(code, `${origin}${pathname}: ${message}`, this.kind === 'file' ? {} : { object }, { cause });
  }
}

/** Whether the server has led from a URL to that of a directory, whose list it sends. */
const isList = ({ redirected, url }: Response): boolean => redirected && new URL(url).pathname.endsWith('/');

/** First and last byte, and size of the whole; undefined what a Content-Range does not say. */
function rangeOf(header: string | null): [start: number | undefined, end: number | undefined, size: number | undefined] {
  const match = /^bytes ([0-9]+)-([0-9]+)\/([0-9]+|\*)$/.exec(header ?? '');
  if (match === null) return [undefined, undefined, undefined];
  const [start, end, size] = [Number(match[1]), Number(match[2]), match[3] === '*' ? undefined : Number(match[3])];
  return [start, end, size];
}

function any(signals: readonly AbortSignal[]): AbortSignal | null {
  const [one, two] = signals;
  return one === undefined || two === undefined ? one ?? null : AbortSignal.any([one, two]);
}

function pause(milliseconds: number, signal: AbortSignal | null): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', end, { once: true });
  });
}

/** Lets so many through at a time. */
class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  async pass<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => { this.#waiting.push(resolve); });
    try {
      return await action();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}
