// What `ckptfmt view` serves beside the page: a list of the checkpoints that can be asked for.

export interface Listed {
  name: string;
  format: string | null;
  step: number | null;
  time: number | null;
  size: number | null;
  metrics: Record<string, number | string>;
  error: string | null;
  kept: string[];
  directory: boolean;
  /** Where it can be asked for, relative to the page; null where the page does not read its format. */
  at: string | null;
  /** What to do instead. */
  advice: string | null;
}

export interface Index {
  path: string;
  folder: boolean;
  checkpoints: Listed[];
}

/** The list, if a server said in the page that it has one. */
export async function servedIndex(): Promise<Index | null> {
  const place = document.querySelector<HTMLMetaElement>('meta[name="ckptfmt-index"]')?.content;
  if (!place) return null;
  const answer = await fetch(place);
  const document_ = (await answer.json()) as Index | { error: { message: string; advice?: string } };
  if ('error' in document_) throw new Error(`${document_.error.message} ${document_.error.advice ?? ''}`);
  return document_;
}
