// The time line of stages and the waterfall of requests.
import { h, show } from './dom.js';
import { ms, percent } from './format.js';

const kinds = [['transfer', 'transfer'], ['wait', 'wait for input'], ['queue', 'queue'], ['compute', 'compute']];

export const kindKey = () => kinds.map(([kind, name]) => h('span', { class: 'legend' }, h('span', { class: `key ${kind}`, 'aria-hidden': 'true' }), name));

/** ticks are about five round moments between 0 and the end. */
export function ticks(end) {
  const raw = end / 5;
  const base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= raw);
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, i) => i * step);
}

function axis(end) {
  return h('div', { class: 'axis', 'aria-hidden': 'true' }, ticks(end).map((t) => h('span', { style: { left: `${(100 * t) / end}%` } }, ms(t))));
}

/** timeline draws how busy each worker was, one row each. */
export function timeline(line, stages) {
  const end = (line.end_ns - line.start_ns) / 1e6;
  if (!(end > 0)) return h('p', { class: 'empty' }, 'Nothing was recorded.');
  const rows = line.stages.map((track, i) => {
    const n = track.busy.length;
    const points = track.busy.flatMap((b, x) => [`${x},${1 - Math.min(1, b)}`, `${x + 1},${1 - Math.min(1, b)}`]);
    const mean = track.busy.reduce((sum, b) => sum + Math.min(1, b), 0) / n;
    const svg = h('svg', { viewBox: `0 0 ${n} 1`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${track.worker}: busy ${percent(mean)} of the time` },
      h('path', { d: `M0,1 L${points.join(' L')} L${n},1 Z`, class: 'area' }));
    const tip = h('span', { class: 'tip', 'aria-hidden': 'true' });
    const lane = h('div', { class: 'lane' }, svg, tip);
    lane.addEventListener('pointermove', (e) => {
      const box = lane.getBoundingClientRect();
      const at = Math.min(n - 1, Math.max(0, Math.floor(((e.clientX - box.left) / box.width) * n)));
      tip.textContent = `${percent(Math.min(1, track.busy[at]))} busy at ${ms(((at + 0.5) / n) * end)}`;
      tip.style.left = `${Math.min(box.width - tip.offsetWidth - 4, Math.max(0, e.clientX - box.left + 10))}px`;
    });
    const name = stages[i]?.name;
    return h('div', { class: 'track' }, h('span', { class: 'track-name', title: track.worker }, name ? `${track.worker} ${name}` : track.worker), lane);
  });
  return h('div', { class: 'tracks' }, rows, h('div', { class: 'track' }, h('span'), axis(end)));
}

/** waterfall draws requests on one axis of time, one row per stage. */
export function waterfall(requests, total) {
  const start = Math.min(...requests.map((r) => r.start_ms));
  const end = Math.max(...requests.map((r) => r.start_ms + r.e2e_ms)) - start;
  if (!(end > 0)) return h('p', { class: 'empty' }, 'The requests took no time.');
  const bar = (p) => h('span', {
    class: `part ${p.kind}`, title: `${p.kind} ${ms(p.ms)}, from ${ms(p.start_ms - start)}`,
    style: { left: `${(100 * (p.start_ms - start)) / end}%`, width: `max(1px, ${(100 * p.ms) / end}%)` },
  });
  const row = (r) => {
    const sum = (kind) => r.stages.reduce((t, s) => t + s.parts.filter((p) => p.kind === kind).reduce((u, p) => u + p.ms, 0), 0);
    const words = `${r.id}: ${ms(r.e2e_ms)}; ${kinds.map(([k, name]) => `${name} ${ms(sum(k))}`).join(', ')}`;
    return h('li', { class: 'request' },
      h('div', { class: 'request-name' }, h('span', { class: 'clip', title: r.id }, r.id), h('span', { class: 'took' }, ms(r.e2e_ms)),
        r.slow && h('span', { class: 'pill warn' }, 'slow'), r.error && h('span', { class: 'pill bad', title: r.error }, 'failed')),
      h('div', { class: 'request-bars', role: 'img', 'aria-label': words }, r.stages.map((s) => h('div', { class: 'bar-row' },
        h('span', { class: 'bar-name' }, s.name), h('div', { class: 'bar-lane' }, s.parts.map(bar))))));
  };
  const list = h('ol', { class: 'requests' });
  const more = h('div');
  const few = 12;
  const draw = (n) => {
    show(list, requests.slice(0, n).map(row));
    show(more, n < requests.length && h('button', { class: 'quiet', onclick: () => draw(requests.length) }, `Show ${requests.length - n} more`),
      n >= requests.length && total > requests.length && h('p', { class: 'note' }, `The first ${requests.length} of ${total} requests.`));
  };
  draw(few);
  return h('div', { class: 'waterfall' }, list, h('div', { class: 'request' }, h('span'), h('div', { class: 'bar-row' }, h('span'), axis(end))), more);
}
