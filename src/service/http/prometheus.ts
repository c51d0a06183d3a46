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
export function renderMetrics({ level, targets, serviceStartedAtMs }: Status): string {
  const whole = [
    ...metric('sqlsync_service_status', 'The worst of all targets: 0 fine, 1 late, 2 failing', [
      ['', LEVEL_STATUS[level]],
    ]),
    ...metric('sqlsync_service_start_timestamp_seconds', 'When the service started', [
      ['', serviceStartedAtMs / 1000],
    ]),
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

function labelsOf({ origin, target, kind }: TargetStatus): string {
  return `{origin="${escape(origin)}",target="${escape(target)}",kind="${kind}"}`;
}

function escape(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
