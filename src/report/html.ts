import { sanitizeLine } from '../errors.ts';

/** Text for HTML, in an element or a quoted attribute: names of databases may be hostile. */
export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** A name for HTML, on one line, without characters that would reorder the text around it. */
export function nameHtml(name: string): string {
  return `<bdi>${escapeHtml(sanitizeLine(name, 200))}</bdi>`;
}

/** By the clock of this host: 2026-11-21 03:00:12. */
export function clock(ms: number): string {
  const date = new Date(ms);
  const two = (number: number): string => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function timeHtml(ms: number): string {
  const [day, time] = clock(ms).split(' ');
  return `<time datetime="${new Date(ms).toISOString()}"><span>${day}</span> <span>${time}</span></time>`;
}

const LINE_WIDTH = 80;
const LINE_HEIGHT = 16;

/** Figures as a line; nothing for fewer than two. `says` is for those who do not see it. */
export function sparkline(figures: readonly number[], says: string): string {
  if (figures.length < 2) return '';
  const [least, most] = [Math.min(...figures), Math.max(...figures)];
  const points = figures.map((figure, at) => {
    const x = (at / (figures.length - 1)) * LINE_WIDTH;
    const y =
      most === least
        ? LINE_HEIGHT / 2
        : LINE_HEIGHT - 1 - ((figure - least) / (most - least)) * (LINE_HEIGHT - 2);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  return `<svg class="line" viewBox="0 0 ${LINE_WIDTH} ${LINE_HEIGHT}" width="${LINE_WIDTH}" height="${LINE_HEIGHT}" role="img" aria-label="${escapeHtml(says)}"><polyline points="${points.join(' ')}"/></svg>`;
}
