import { sanitizeText } from '../../errors.ts';

/**
 * How much a warning matters to users who only want to hear of faults (`-q`). `news` changes what the user has or asked
 * for: damage, something left out, something that was requested and not done, a danger to the copy. `advice` is about
 * the course of the run: the origin's writers wait, another attempt follows, the next run takes longer.
 */
export type WarningKind = 'news' | 'advice';

export interface AnnouncementListeners {
  readonly onWarning?: ((warning: string, kind: WarningKind) => void) | undefined;
  readonly onNote?: ((note: string) => void) | undefined;
}

/** What an origin agent reports about its snapshot. */
export interface AnnouncedSnapshot {
  readonly wal: boolean;
  readonly originPath: string;
  readonly warnings: readonly string[];
  readonly notes: readonly string[];
}

/**
 * The warnings and notes of one run, each once, although every attempt and every round begins with the same ones. They
 * may come from a peer, so they are made safe to show.
 */
export class Announcements {
  readonly warnings: string[] = [];
  readonly #notes = new Set<string>();
  readonly #listeners: AnnouncementListeners;

  constructor(listeners: AnnouncementListeners) {
    this.#listeners = listeners;
  }

  warn(text: string, kind: WarningKind = 'news'): void {
    const warning = sanitizeText(text);
    if (this.warnings.includes(warning)) return;
    this.warnings.push(warning);
    this.#listeners.onWarning?.(warning, kind);
  }

  note(text: string): void {
    const note = sanitizeText(text);
    if (this.#notes.has(note)) return;
    this.#notes.add(note);
    this.#listeners.onNote?.(note);
  }

  snapshot({ wal, originPath, warnings, notes }: AnnouncedSnapshot): void {
    if (!wal) {
      this.warn(
        `${originPath} is in rollback mode: its writers wait while the snapshot is held. In WAL mode they do not (PRAGMA journal_mode=WAL).`,
        'advice',
      );
    }
    for (const warning of warnings) this.warn(warning);
    for (const note of notes) this.note(note);
  }
}
