import type { Facts } from './facts.ts';

/** From the worst: data is at risk or damaged; somebody is blocked; it will hurt. */
export const SEVERITIES = ['danger', 'blocked', 'advice'] as const;
export type Severity = (typeof SEVERITIES)[number];

export interface Finding {
  /** A stable name for programs, such as `wal-pinned`. */
  readonly id: string;
  readonly severity: Severity;
  /** What was found, as one sentence without a full stop. */
  readonly title: string;
  /** What it means. */
  readonly meaning: string;
  /** What mends it: a command, a statement, or a sentence. */
  readonly mend: string;
}

/** What `sqlsync doctor` tells: the facts, and the findings that follow from them, worst first. */
export interface Report {
  readonly facts: Facts;
  readonly findings: readonly Finding[];
}
