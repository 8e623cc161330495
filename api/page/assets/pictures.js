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

/**
 * lane draws values over equal parts of the time up to end, in milliseconds; the highest there can be is top. Where a value is
 * null nothing was reported. words says a value.
 */
function lane(values, top, end, label, words) {
  const n = values.length;
  const height = (v) => 1 - Math.min(1, v / top);
  const pieces = [];
  values.forEach((v, x) => {
    if (v === null) return;
    if (x === 0 || values[x - 1] === null) pieces.push(`M${x},1`);
    pieces.push(`L${x},${height(v)} L${x + 1},${height(v)}`);
    if (x === n - 1 || values[x + 1] === null) pieces.push(`L${x + 1},1 Z`);
  });
  const svg = h('svg', { viewBox: `0 0 ${n} 1`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    h('path', { d: pieces.join(' '), class: 'area' }));
  const tip = h('span', { class: 'tip', 'aria-hidden': 'true' });
  const element = h('div', { class: 'lane' }, svg, tip);
  element.addEventListener('pointermove', (e) => {
    const box = element.getBoundingClientRect();
    const at = Math.min(n - 1, Math.max(0, Math.floor(((e.clientX - box.left) / box.width) * n)));
    tip.textContent = `${values[at] === null ? 'nothing reported' : words(values[at])} at ${ms(((at + 0.5) / n) * end)}`;
    tip.style.left = `${Math.min(box.width - tip.offsetWidth - 4, Math.max(0, e.clientX - box.left + 10))}px`;
  });
  return element;
}

/** track is a lane with its name. */
const track = (name, title, drawn) => h('div', { class: 'track' }, h('span', { class: 'track-name', title }, name), drawn);

/** tracks puts tracks above one axis of time. */
const tracks = (rows, end) => h('div', { class: 'tracks' }, rows, h('div', { class: 'track' }, h('span'), axis(end)));

/** timeline draws how busy each worker was, one row each. */
export function timeline(line, stages) {
  const end = (line.end_ns - line.start_ns) / 1e6;
  if (!(end > 0)) return h('p', { class: 'empty' }, 'Nothing was recorded.');
  return tracks(line.stages.map((worker, i) => {
    const busy = worker.busy.map((b) => Math.min(1, b));
    const mean = busy.reduce((sum, b) => sum + b, 0) / busy.length;
    const name = stages[i]?.name;
    return track(name ? `${worker.worker} ${name}` : worker.worker, worker.worker,
      lane(busy, 1, end, `${worker.worker}: busy ${percent(mean)} of the time`, (b) => `${percent(b)} busy`));
  }), end);
}

/** held gives a part of the time in which nothing was reported the value before it, up to the last: GPUs are asked now and then. */
function held(values) {
  const last = values.findLastIndex((v) => v !== null);
  let before = null;
  return values.map((v, i) => {
    before = v ?? before;
    return i <= last ? before : null;
  });
}

/** gpuTimeline draws what each GPU reported, one row for each number. */
export function gpuTimeline(line) {
  const end = (line.end_ns - line.start_ns) / 1e6;
  if (!(end > 0)) return null;
  const rows = line.gpus.flatMap((gpu) => {
    const named = (what) => `GPU ${gpu.index} ${what}`;
    const drawn = gpu.gauges.map((gauge) => {
      const values = gauge.values.filter((v) => v !== null);
      const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
      const words = (v) => `${Math.round(v)} ${gauge.unit}`;
      const top = gauge.unit === '%' ? 100 : Math.max(...values, 1e-9);
      return track(named(gauge.name), gpu.name, lane(held(gauge.values), top, end, `${named(gauge.name)}: ${words(mean)} on average`, words));
    });
    if (gpu.throttled.some((v) => v > 0)) {
      drawn.push(track(named('kept down'), gpu.name, lane(held(gpu.throttled), 1, end, `${named('kept down')} at times`, (v) => `clocks kept down ${percent(v)}`)));
    }
    return drawn;
  });
  return tracks(rows, end);
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
        r.slow && h('span', { class: 'pill warn' }, 'slow'), r.unfinished && h('span', { class: 'pill' }, 'had not ended'), r.error && h('span', { class: 'pill bad', title: r.error }, 'failed')),
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
