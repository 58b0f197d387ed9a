// In place of disk.ts where there is no disk: in browsers.

import type { Source } from './api.js';
import { CkptError } from './errors.js';

export async function openDisk(place: string | URL): Promise<Source> {
  throw new CkptError('not-found', `${place} is a path, which Node alone can open; open a File or a URL instead`);
}
