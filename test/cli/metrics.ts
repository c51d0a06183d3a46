/**
 * Strict reader of the text format of Prometheus, version 0.0.4, as far as gauges go: what it accepts, promtool
 * accepts. Every metric has one HELP line, then one TYPE line, then its samples, all of them together.
 */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export function parseMetrics(text: string): Sample[] {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const samples: Sample[] = [];
  const seen = new Set<string>();
  let current: string | undefined;
  let typed = false;
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\]|\\\\|\\n)+)$/.exec(line);
    if (help !== null) {
      current = help[1] as string;
      if (seen.has(`# ${current}`)) throw new Error(`metric ${current} comes twice`);
      seen.add(`# ${current}`);
      typed = false;
    } else if (line === `# TYPE ${current} gauge` && !typed) {
      typed = true;
    } else {
      const sample = parseSample(line);
      if (sample.name !== current || !typed) throw new Error(`out of its place: ${line}`);
      const series = JSON.stringify([
        sample.name,
        Object.keys(sample.labels)
          .toSorted()
          .map((key) => sample.labels[key]),
      ]);
      if (seen.has(series)) throw new Error(`twice: ${line}`);
      seen.add(series);
      samples.push(sample);
    }
  }
  return samples;
}

function parseSample(line: string): Sample {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^\n]*)\} (\S+)$/.exec(line);
  if (match === null) throw new Error(`no sample: ${line}`);
  const [, name = '', inner = '', number = ''] = match;
  if (!/^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(number)) throw new Error(`no number: ${line}`);
  const labels: Record<string, string> = {};
  let rest = inner;
  while (rest !== '') {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(,(?=[a-zA-Z_])|$)/.exec(rest);
    if (label === null) throw new Error(`no label: ${rest}`);
    const [all, key = '', value = ''] = label;
    if (Object.hasOwn(labels, key)) throw new Error(`label ${key} twice: ${line}`);
    labels[key] = value.replaceAll(/\\([^\n])/g, (_, escaped) => (escaped === 'n' ? '\n' : String(escaped)));
    rest = rest.slice(all.length);
  }
  return { name, labels, value: Number(number) };
}
