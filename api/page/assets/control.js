// Start and stop of profile sessions, and how far the current one is.
import { h, show, pill, problem, table, num, numHead } from './dom.js';
import { json, profileKey, ServerError } from './net.js';
import { bytes, count, ms, percent, seconds } from './format.js';

const limits = [
  ['max_seconds', 'Seconds', 'ends recording after that time', 'any'],
  ['max_iterations', 'Steps', 'records at most so many steps of each stage', '1'],
  ['delay_iterations', 'Begin with step', 'lets earlier steps pass', '1'],
  ['max_events', 'Events', 'ends recording of a stage with so many events', '1'],
  ['max_trace_mb', 'Megabytes', 'ends recording of a stage when its trace is that large', 'any'],
];

function form(onStart, onDump) {
  const stageBoxes = h('div', { class: 'choices' });
  const check = (name, label, checked, title) => h('label', { title }, h('input', { type: 'checkbox', name, checked }), label);
  const element = h('form', { class: 'control' },
    h('fieldset', {}, h('legend', {}, 'Stages'), stageBoxes),
    h('fieldset', {}, h('legend', {}, 'Record'),
      h('div', { class: 'choices' },
        h('label', {}, h('input', { type: 'radio', name: 'detail', value: '', checked: true }), 'as configured'),
        h('label', {}, h('input', { type: 'radio', name: 'detail', value: 'ops' }), 'every operator'),
        h('label', {}, h('input', { type: 'radio', name: 'detail', value: 'modules' }), 'steps and modules'))),
    h('details', {}, h('summary', {}, 'Limits and more'),
      h('p', { class: 'note' }, 'What is left empty stays as the server was configured.'),
      h('div', { class: 'fields' },
        limits.map(([name, label, title, step]) => h('label', { title }, h('span', {}, label),
          h('input', { type: 'number', name, min: '0', step, inputmode: 'decimal' }))),
        h('label', { title: 'goes in front of the names of traces' }, h('span', {}, 'Prefix'),
          h('input', { name: 'profile_prefix', pattern: '[A-Za-z0-9_\\-]*', maxlength: '64', autocomplete: 'off' }))),
      h('div', { class: 'choices' },
        check('torch_profiler_record_shapes', 'shapes', false, 'shapes, types and scalars of inputs'),
        check('torch_profiler_with_memory', 'memory', false, 'allocations'),
        check('torch_profiler_with_flops', 'FLOPs', false, 'estimated floating point operations')),
      h('p', { class: 'note flight' }, 'A server with a flight recorder (ring_seconds) can also keep what has just happened:', ' ',
        h('button', { type: 'button', class: 'quiet', onclick: onDump }, 'Dump the flight recorder'))),
    h('div', { class: 'actions' }, h('button', { class: 'primary' }, 'Start profiling')));
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    const data = new FormData(element);
    const body = {};
    const chosen = data.getAll('stage').map(Number);
    if (chosen.length < stageBoxes.children.length) body.stages = chosen;
    if (data.get('detail')) body.detail = data.get('detail');
    for (const [name] of limits) if (data.get(name) !== '') body[name] = Number(data.get(name));
    if (data.get('profile_prefix') !== '') body.profile_prefix = data.get('profile_prefix');
    for (const name of ['torch_profiler_record_shapes', 'torch_profiler_with_memory', 'torch_profiler_with_flops']) if (data.has(name)) body[name] = true;
    onStart(body);
  });
  return {
    element,
    setStages(list) {
      if (stageBoxes.children.length === list.length) return;
      show(stageBoxes, list.map((s) => h('label', {},
        h('input', { type: 'checkbox', name: 'stage', value: String(s.id), checked: true }), `${s.id} ${s.name}`)));
      stageBoxes.addEventListener('change', () => {
        const some = stageBoxes.querySelector(':checked') !== null;
        element.querySelector('button.primary').disabled = !some;
        stageBoxes.title = some ? '' : 'choose at least one stage';
      });
    },
  };
}

/** workerTable says how far each worker of a session is. */
export function workerTable(workers) {
  return table('Workers of the session',
    ['worker', 'state', numHead('steps'), numHead('events'), numHead('dropped', 'events that the trace lacks'), numHead('overhead', 'share of the time that recording took'), numHead('written'), numHead('stop', 'how long ending collection held up the model')],
    workers.map((w) => {
      const dropped = Object.entries(w.dropped ?? {});
      const total = dropped.reduce((sum, [, n]) => sum + n, 0);
      return [h('th', { scope: 'row', class: 'nowrap' }, w.worker), h('td', { title: w.error || w.ended || null }, pill(w.state), w.error && h('span', { class: 'bad-text' }, ' ', w.error)),
        num(count(w.steps)), num(count(w.events)),
        h('td', { class: `num${total > 0 ? ' bad-text' : ''}`, title: dropped.map(([why, n]) => `${why}: ${count(n)}`).join(', ') || null }, count(total)),
        num(w.overhead_pct === undefined ? '–' : percent(w.overhead_pct / 100)), num(bytes(w.bytes)),
        num(w.stop_ms ? ms(w.stop_ms) : '–')];
    }));
}

function keyForm(again) {
  const input = h('input', { type: 'password', name: 'key', autocomplete: 'current-password', required: true });
  return h('form', {
    class: 'control', onsubmit: (event) => { event.preventDefault(); profileKey(input.value); again(); },
  }, h('label', { class: 'wide' }, h('span', {}, 'Key for profile control'), input), h('div', { class: 'actions' }, h('button', { class: 'primary' }, 'Use this key')));
}

export function control(signal, changed) {
  const host = h('div', { class: 'stack' });
  const status = h('div', { class: 'stack', 'aria-live': 'polite' });
  const fault = h('div');
  let report = null, profiler = null, timer = 0, busy = false;
  let was = '';

  const start = form((body) => act(() => json('start_profile', { method: 'POST', body })), () => act(() => json('dump_profile', { method: 'POST' })));
  const stop = h('div', { class: 'actions' }, h('button', { class: 'danger', onclick: () => act(() => json('stop_profile', { method: 'POST', body: { wait: false } })) }, 'Stop profiling'));

  async function act(ask) {
    if (busy) return;
    busy = true;
    host.setAttribute('aria-busy', 'true');
    show(fault);
    try {
      const answer = await ask();
      if (answer?.error) show(fault, problem(answer.error));
    } catch (e) {
      show(fault, problem(e));
    } finally {
      busy = false;
      host.removeAttribute('aria-busy');
    }
    await refresh();
  }

  function draw() {
    const going = report.session !== '' && !report.complete;
    const state = report.active ? 'active' : going ? 'writing' : `idle ${report.session}`;
    if (state !== was) {
      show(host, report.active ? stop : start.element, fault, status);
      if (was !== '') changed();
      was = state;
    }
    if (report.session === '') {
      show(status, h('p', { class: 'note' }, 'Nothing has been recorded since the server was started.'));
      return;
    }
    const began = Math.min(...report.workers.map((w) => w.started_ns || Infinity));
    const since = Number.isFinite(began) && report.active ? ` for ${seconds(Math.max(0, Date.now() - began / 1e6) / 1000)}` : '';
    const failed = report.workers.filter((w) => w.state === 'failed').length;
    const words = report.active ? `Session ${report.session} records${since}.` : going ? `Session ${report.session} is being written; the models go on.` : failed > 0 ? `Session ${report.session} has ended; ${failed} of ${report.workers.length} workers failed.` : `Session ${report.session} is complete.`;
    show(status, report.trigger && h('p', { class: 'note' }, report.trigger === 'dump' ? 'It was made of what the flight recorders held.' : `The flight recorders were dumped: ${report.trigger}.`),
      h('p', {}, report.active && h('span', { class: 'dot live', 'aria-hidden': 'true' }), words, ' ',
      !report.active && !going && report.id && h('a', { href: `#/profiles/${encodeURIComponent(report.id)}` }, 'Look at it')),
      workerTable(report.workers));
  }

  async function refresh() {
    clearTimeout(timer);
    if (signal.aborted) return;
    let pause = 3000;
    if (!document.hidden && !busy) {
      try {
        report = await json('profile_status', { signal });
        draw();
        if (report.active || (report.session !== '' && !report.complete)) pause = 1000;
      } catch (e) {
        if (e.name === 'AbortError') return;
        was = '';
        if (e instanceof ServerError && e.status === 401) {
          show(host, profileKey() !== '' && problem(e), keyForm(refresh));
          return;
        }
        if (profiler !== false) show(host, problem(e));
      }
    }
    timer = setTimeout(refresh, pause);
  }

  show(host, h('p', { class: 'note' }, 'Asking the server …'));
  document.addEventListener('omni:stages', ({ detail }) => {
    start.setStages(detail.stages);
    if (profiler === detail.profiler) return;
    profiler = detail.profiler;
    if (profiler) refresh();
    else {
      show(host, h('p', { class: 'note' }, 'This server cannot record profiles. Start it with a folder for them:'),
        h('pre', {}, 'omni-run serve --model … --profile-dir ./profiles'));
    }
  }, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  return host;
}
