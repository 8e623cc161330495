// Stages with their live numbers. Rates are differences between two answers of the server.
import { h, show, pill } from './dom.js';
import { bytes, count, percent, rate } from './format.js';

const history = new Map(); // stage id -> samples of the last two minutes; kept while other views are shown
const keep = 120;

function sample(stage, before, atNS) {
  const dt = (atNS - before.atNS) / 1e9;
  const alive = stage.answered && stage.pid === before.stage.pid && dt > 0;
  const per = (name) => (alive ? Math.max(0, stage[name] - before.stage[name]) / dt : 0);
  const steps = alive ? stage.steps - before.stage.steps : 0;
  return {
    at: atNS / 1e9,
    tokens: per('tokens'),
    audio: per('samples') / (stage.info.sample_rate || 1),
    busy: Math.min(1, per('busy_ms') / 1000 + (steps === 0 && stage.step_ms > 0 ? 1 : 0)),
    batch: steps > 0 ? (stage.stepped - before.stage.stepped) / steps : 0,
  };
}

document.addEventListener('omni:stages', ({ detail }) => {
  for (const stage of detail.stages) {
    const known = history.get(stage.id) ?? { samples: [], last: null };
    if (known.last) known.samples.push(sample(stage, known.last, detail.time_ns));
    known.samples = known.samples.slice(-keep);
    known.last = { stage, atNS: detail.time_ns };
    history.set(stage.id, known);
  }
});

/** isSound reports whether a stage makes audio rather than tokens. */
const isSound = (stage) => stage.info.samples_per_code > 0 && stage.tokens === 0;

function chart(host) {
  const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim(); // asked at each drawing: the scheme may change
  const plot = new uPlot({
    width: Math.max(60, host.clientWidth), height: 56, legend: { show: false }, cursor: { show: false },
    padding: [4, 0, 0, 0],
    scales: { x: { time: false }, y: { range: (u, low, high) => [0, Math.max(high * 1.15, 1)] } },
    axes: [{ show: false }, { show: false }],
    series: [{}, { stroke: colour('--accent'), width: 1.5, fill: colour('--accent-wash'), points: { show: false } }],
  }, [[], []], host);
  return plot;
}

function card(stage) {
  const big = h('span', { class: 'big' }, '0');
  const unit = h('span', { class: 'unit' });
  const plotHost = h('div', { class: 'spark', role: 'img' });
  const facts = h('dl', { class: 'facts' });
  const state = h('span');
  const fault = h('div');
  const about = h('p', { class: 'about' });
  const element = h('li', { class: 'stage' },
    h('div', { class: 'stage-head' }, h('h3', {}, h('span', { class: 'id' }, String(stage.id)), stage.name), state),
    about, h('p', { class: 'rate' }, big, ' ', unit), plotHost, facts, fault);
  let plot = null;
  const size = new ResizeObserver(() => plot?.setSize({ width: Math.max(60, plotHost.clientWidth), height: 56 }));
  size.observe(plotHost);
  return {
    element,
    update(s) {
      plot ??= chart(plotHost);
      const samples = history.get(s.id)?.samples ?? [];
      const now = samples.at(-1);
      const series = isSound(s) ? 'audio' : 'tokens';
      const last = samples.slice(-3); // one second alone jumps
      const value = last.reduce((sum, x) => sum + x[series], 0) / Math.max(1, last.length);
      big.textContent = series === 'audio' ? value.toFixed(value < 10 ? 2 : 1) : rate(value);
      unit.textContent = series === 'audio' ? 's of audio / s' : 'tokens / s';
      plotHost.setAttribute('aria-label', `${unit.textContent} over the last two minutes, now ${big.textContent}`);
      plot.setData([samples.map((x) => x.at), samples.map((x) => x[series])]);
      show(state, pill(s.state));
      about.textContent = [s.info.device || 'cpu', s.info.dtype, `${s.threads} thread${s.threads === 1 ? '' : 's'}`].filter(Boolean).join(' · ');
      about.title = s.model;
      const fact = (name, text, title) => h('div', { title: title ?? null }, h('dt', {}, name), h('dd', {}, text));
      show(facts,
        fact('in stage', s.answered ? count(s.sequences) : '–', 'requests in the stage'),
        fact('queue', s.answered ? count(s.queued) : '–', 'requests that could be in the running step and are not'),
        fact('batch', now?.batch ? `${now.batch.toFixed(1)} / ${s.max_batch}` : `– / ${s.max_batch}`, 'mean requests in a step, and the most there can be'),
        fact('busy', s.answered && now ? percent(now.busy) : '–', 'share of the time in steps'),
        fact('memory', s.answered ? bytes(s.rss_bytes) : '–', 'resident memory of the worker'));
      show(fault,
        s.restarts > 0 && h('p', { class: 'note' }, `restarted ${s.restarts} time${s.restarts === 1 ? '' : 's'}`),
        s.error && s.state !== 'ready' && h('p', { class: 'problem' }, s.error));
    },
  };
}

export function stages(signal) {
  const host = h('ol', { class: 'stages' }, h('li', { class: 'empty' }, 'Asking the server …'));
  const cards = new Map();
  let shown = '';
  document.addEventListener('omni:stages', ({ detail }) => {
    const ids = detail.stages.map((s) => s.id).join();
    if (ids !== shown) {
      cards.clear();
      for (const s of detail.stages) cards.set(s.id, card(s));
      show(host, [...cards.values()].map((c) => c.element));
      shown = ids;
    }
    for (const s of detail.stages) cards.get(s.id).update(s);
  }, { signal });
  document.addEventListener('omni:lost', ({ detail }) => {
    if (shown === '') show(host, h('li', { class: 'empty' }, detail.message));
  }, { signal });
  return host;
}
