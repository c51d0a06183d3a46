import { LEVEL_STATUS } from '../state/judge.ts';
import type { Status, TargetStatus } from '../state/judge.ts';

/** The figures of each target: name, what it is, and its value, if it has one. */
const FIGURES: readonly (readonly [
  name: string,
  help: string,
  value: (target: TargetStatus) => number | undefined,
])[] = [
  [
    'status',
    '0 fine, 1 late, 2 failing',
    ({ level }) => (level === 'gone' ? undefined : LEVEL_STATUS[level]),
  ],
  ['gone', '1 for a database that is not there any more', ({ level }) => (level === 'gone' ? 1 : 0)],
  ['lag_seconds', 'How old the copy is at most', ({ lagMs }) => seconds(lagMs)],
  [
    'last_success_timestamp_seconds',
    'Start of the last run that succeeded',
    ({ lastSuccessAtMs }) => seconds(lastSuccessAtMs),
  ],
  ['next_run_timestamp_seconds', 'When the next run is due', ({ nextRunAtMs }) => seconds(nextRunAtMs)],
  [
    'proven_timestamp_seconds',
    'When the copy was last restored and found whole',
    ({ provenAtMs }) => seconds(provenAtMs),
  ],
  ['database_bytes', 'Size of the database', ({ sizeBytes }) => sizeBytes],
  ['moved_bytes', 'What the last run moved', ({ moved }) => moved?.bytes],
  ['changed_pages', 'Pages that had changed at the last run', ({ moved }) => moved?.pagesChanged],
];

/** The status in the text format of Prometheus. Pure. */
export function renderMetrics({ level, targets, entries, serviceStartedAtMs }: Status): string {
  const whole = [
    ...metric('sqlsync_service_status', 'The worst of all targets: 0 fine, 1 late, 2 failing', [
      ['', LEVEL_STATUS[level]],
    ]),
    ...metric('sqlsync_service_start_timestamp_seconds', 'When the service started', [
      ['', serviceStartedAtMs / 1000],
    ]),
    ...metric(
      'sqlsync_entry_databases',
      'How many databases a pattern or a watched folder has',
      entries.map(({ entry, databases }) => [`{entry="${escape(entry)}"}`, databases]),
    ),
    ...metric(
      'sqlsync_entry_status',
      '0 fine, 1 late: it has no databases, 2 failing: it cannot be searched',
      entries.map(({ entry, level: each }) => [`{entry="${escape(entry)}"}`, LEVEL_STATUS[each]]),
    ),
  ];
  const each = FIGURES.flatMap(([name, help, value]) =>
    metric(
      `sqlsync_target_${name}`,
      help,
      targets.flatMap((target) => {
        const figure = value(target);
        return figure === undefined ? [] : [[labelsOf(target), figure] as const];
      }),
    ),
  );
  return `${[...whole, ...each].join('\n')}\n`;
}

function metric(
  name: string,
  help: string,
  values: readonly (readonly [labels: string, value: number])[],
): string[] {
  return [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} gauge`,
    ...values.map(([labels, value]) => `${name}${labels} ${value}`),
  ];
}

/** With the id: two hostile names may look the same, and are two series all the same. */
function labelsOf({ id, origin, target, kind }: TargetStatus): string {
  return `{origin="${escape(origin)}",target="${escape(target)}",kind="${kind}",id="${id}"}`;
}

function escape(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
