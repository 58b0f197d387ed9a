// What people give to be opened: files that were dropped or chosen, or a URL.

export interface GivenFile {
  /** Its path in the folder that was dropped, which begins with the folder's name; else its name. */
  path: string;
  file: File;
}

export type Given = { files: GivenFile[] } | { url: string };

const MOST = 100_000; // files of a folder

/** The files and folders of a drop. Entries cannot be read by a page from the disk, in Chromium: files and handles can. */
export async function dropped(transfer: DataTransfer): Promise<Given | null> {
  const items = [...transfer.items].filter(({ kind }) => kind === 'file');
  const text = transfer.getData('text/uri-list') || transfer.getData('text/plain');
  if (items.length === 0) return /^https?:\/\//.test(text) ? { url: text.trim().split('\n')[0]!.trim() } : null;
  const found = items.map((item) => { // before anything is awaited, as items end with the event
    const entry = item.webkitGetAsEntry();
    const file = item.getAsFile();
    if (!entry?.isDirectory) return { file };
    const handle = (item as ItemWithHandle).getAsFileSystemHandle?.();
    return handle ? { handle } : { entry };
  });
  const files: GivenFile[] = [];
  for (const { file, handle, entry } of found) {
    const folder = (await handle) as FileSystemDirectoryHandle | null | undefined;
    if (file) files.push({ path: file.name, file });
    else if (folder) await collectHandle(folder as Folder, folder.name, files);
    else if (entry) await collect(entry, entry.name, files);
  }
  return files.length ? { files } : null;
}

/** What libraries of types do not have yet. */
interface ItemWithHandle {
  getAsFileSystemHandle?: () => Promise<FileSystemHandle | null>;
}
type Folder = FileSystemDirectoryHandle & { values(): AsyncIterable<FileSystemFileHandle | Folder> };

async function collectHandle(folder: Folder, path: string, files: GivenFile[]): Promise<void> {
  for await (const one of folder.values()) {
    if (files.length >= MOST) return;
    if (one.kind === 'file') files.push({ path: `${path}/${one.name}`, file: await one.getFile() });
    else await collectHandle(one, `${path}/${one.name}`, files);
  }
}

async function collect(entry: FileSystemEntry, path: string, files: GivenFile[]): Promise<void> {
  if (files.length >= MOST) return;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    files.push({ path, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const one of some) await collect(one, `${path}/${one.name}`, files);
  }
}
