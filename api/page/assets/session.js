// One session: what its stages and requests did, and its files.
import { h, show, pill, problem, table, num, numHead } from './dom.js';
import { json, fileURL, download } from './net.js';
import { bytes, count, ms, ns, percent, when } from './format.js';
import { erase } from './sessions.js';
import { workerTable } from './control.js';
import { timeline, gpuTimeline, waterfall, kindKey } from './pictures.js';
import { flame } from './flame.js';
import { perfetto } from './perfetto.js';

const merged = 'merged.trace.json.gz';

function stageTable(stages) {
  const share = (s, what) => (s.window_ms > 0 ? s[what] / s.window_ms : 0);
  const bar = (s) => h('td', {}, h('div', {
    class: 'shares', role: 'img',
    'aria-label': `busy ${percent(share(s, 'busy_ms'))}, waiting ${percent(share(s, 'waiting_ms'))}, idle ${percent(share(s, 'idle_ms'))}`,
  }, ['busy', 'waiting', 'idle'].map((k) => h('span', { class: k, title: `${k} ${ms(s[`${k}_ms`])}, ${percent(share(s, `${k}_ms`))}`, style: { width: `${100 * share(s, `${k}_ms`)}%` } }))));
  return table('What stages did with their time',
    ['stage', numHead('recorded'), h('th', { class: 'shares-head', scope: 'col' }, h('span', { class: 'key busy' }), 'busy ', h('span', { class: 'key waiting' }), 'waiting ', h('span', { class: 'key idle' }), 'idle'), numHead('busy'), numHead('steps'), numHead('step p50'), numHead('p99'), numHead('requests'), numHead('tokens'), numHead('events'), numHead('dropped'), numHead('overhead')],
    stages.map((s) => [
      h('th', { scope: 'row', class: 'nowrap' }, s.name ? `${s.worker} ${s.name}` : s.worker), num(ms(s.window_ms)), bar(s), num(percent(share(s, 'busy_ms'))), num(count(s.steps)),
      num(ms(s.step_p50_ms)), num(ms(s.step_p99_ms)), num(count(s.requests)), num(count(s.tokens)), num(count(s.events)),
      h('td', { class: `num${s.dropped > 0 ? ' bad-text' : ''}` }, count(s.dropped ?? 0)), num(s.overhead_pct ? percent(s.overhead_pct / 100) : '–'),
    ]));
}

/** gpuTable says what the GPU of each worker did while it recorded; a number that was not reported is a dash. */
function gpuTable(stages) {
  const gauge = (v, words) => num(v === null ? '–' : words(v));
  const unit = (u, digits = 0) => (v) => `${v.toFixed(digits)} ${u}`;
  return table('GPUs', ['stage', numHead('GPU'), numHead('busy'), numHead('power'), numHead('highest'), numHead('energy'), numHead('SM clock'), numHead('lowest'), numHead('memory, highest'), numHead('temperature, highest'), numHead('kept down', 'share of the time in which something kept the clocks down'), 'by'],
    stages.filter((s) => s.gpu).map(({ worker, name, gpu }) => [
      h('th', { scope: 'row', class: 'nowrap' }, name ? `${worker} ${name}` : worker), num(String(gpu.device)), gauge(gpu.busy_pct, unit('%')),
      gauge(gpu.power_w, unit('W')), gauge(gpu.power_max_w, unit('W')), gauge(gpu.energy_j, unit('J', 1)), gauge(gpu.sm_clock_mhz, unit('MHz')),
      gauge(gpu.sm_clock_min_mhz, unit('MHz')), gauge(gpu.memory_max_bytes, bytes), gauge(gpu.temperature_max_c, unit('°C')),
      num(percent(gpu.throttled)), (gpu.throttle ?? []).join(', '),
    ]));
}

function pathTable(path, total) {
  return table('What requests waited for', ['part', numHead('share'), numHead('mean'), numHead('p50'), numHead('p99')],
    path.parts.slice(0, 12).map((p) => [h('td', {}, h('span', { class: `key ${p.kind}`, 'aria-hidden': 'true' }), `${p.name} ${p.kind}`), num(percent(p.share)), num(ms(p.total_ms / total)), num(ms(p.p50_ms)), num(ms(p.p99_ms))]));
}

function operators(stages) {
  const filter = h('input', { type: 'search', placeholder: 'filter by name', 'aria-label': 'filter operators by name' });
  const pick = h('select', { 'aria-label': 'stage' }, stages.map((s, i) => h('option', { value: String(i) }, s.name ? `${s.worker} ${s.name}` : s.worker)));
  const host = h('div');
  const few = 15;
  const draw = (all = false) => {
    const s = stages[Number(pick.value)];
    const ops = s.top.filter((op) => op.name.toLowerCase().includes(filter.value.toLowerCase()));
    show(host, ops.length === 0 ? h('p', { class: 'empty' }, s.top.length === 0 ? 'No operators were recorded here: the session has steps and modules alone.' : 'No operator has such a name.')
      : table(`Operators of ${s.worker}`, ['operator', numHead('self'), numHead('of busy'), numHead('total'), numHead('calls'), numHead('self / call')],
        ops.slice(0, all ? ops.length : few).map((op) => [h('th', { scope: 'row', class: 'op', title: op.name }, op.name), num(ns(op.self_ns)), h('td', { class: 'num meter' }, h('span', { class: 'fill', style: { width: `${Math.min(100, op.self_ns / s.busy_ms / 1e4)}%` } }), percent(op.self_ns / s.busy_ms / 1e6)), num(ns(op.total_ns)), num(count(op.calls)), num(ns(op.self_ns / Math.max(1, op.calls)))])),
      !all && ops.length > few && h('button', { class: 'quiet more', onclick: () => draw(true) }, `Show ${ops.length - few} more`),
      s.device_top && table(`${s.worker} on the GPU`, ['kernel, copy or set', numHead('time'), numHead('share'), numHead('calls'), numHead('time / call')],
        s.device_top.slice(0, all ? s.device_top.length : few).map((op) => [h('th', { scope: 'row', class: 'op', title: op.name }, op.name), num(ns(op.self_ns)), num(percent(op.self_ns / s.device_ms / 1e6)), num(count(op.calls)), num(ns(op.self_ns / Math.max(1, op.calls)))])));
  };
  filter.addEventListener('input', () => draw());
  pick.addEventListener('change', () => draw());
  draw();
  return [h('div', { class: 'tools' }, pick, filter), host];
}

function files(profile, fault) {
  const kinds = { made: 'about all', trace: 'trace', table: 'operator table', ledger: 'times of requests' };
  return table('Files of the session', ['file', 'what', numHead('size'), h('th', {}, h('span', { class: 'unseen' }, 'open'))],
    profile.files.map((f) => [
      h('td', { class: 'names' }, f.complete ? h('a', {
        href: fileURL(profile.id, f.name), download: f.name.endsWith('.html') ? null : f.name, target: f.name.endsWith('.html') ? '_blank' : null, rel: 'noopener',
        onclick: (e) => download(e, profile.id, f.name).catch((err) => show(fault, problem(err))),
      }, f.name) : f.name),
      [kinds[f.kind] ?? f.kind, f.worker].filter(Boolean).join(', ') + (f.complete ? '' : ', unfinished'), num(bytes(f.bytes)),
      h('td', { class: 'num' }, f.complete && /\.trace\.json(\.gz)?$/.test(f.name) && h('button', { class: 'quiet', onclick: () => perfetto(profile.id, f.name, fault) }, 'Perfetto')),
    ]));
}

function header(profile, fault) {
  const best = profile.files.find((f) => f.name === merged && f.complete) ?? profile.files.find((f) => f.kind === 'trace' && f.complete);
  return [
    h('p', { class: 'crumbs' }, h('a', { href: '#/' }, 'omni'), ' / profiles'),
    h('div', { class: 'head' },
      h('h1', {}, profile.name, ' ', pill(profile.state)),
      h('div', { class: 'actions' },
        best && h('button', { class: 'primary', title: best.name, onclick: () => perfetto(profile.id, best.name, fault) }, 'Open in Perfetto'),
        best && h('a', { class: 'button', href: fileURL(profile.id, best.name), download: best.name, onclick: (e) => download(e, profile.id, best.name).catch((err) => show(fault, problem(err))) }, 'Download trace'),
        h('button', {
          class: 'quiet', disabled: !['done', 'failed'].includes(profile.state),
          onclick: async () => {
            try { if (await erase(profile)) location.hash = '#/'; } catch (e) { show(fault, problem(e)); }
          },
        }, 'Delete'))),
    h('p', { class: 'note' }, `${when(profile.started_ns)} · ${profile.workers.length} trace${profile.workers.length === 1 ? '' : 's'} · ${bytes(profile.bytes)}`),
    fault,
  ];
}

function analysisSections(profile, a) {
  const total = Math.max(1, a.requests_total);
  return [
    a.request_ids && h('p', { class: 'note' }, `Requests, tokens and waiting are those of ${count(a.request_ids.length)} requests alone, which the session was begun for: `, h('span', { class: 'names' }, a.request_ids.slice(0, 5).join(', '), a.request_ids.length > 5 && ', …')),
    (a.missing ?? []).map((what) => h('p', { class: 'warning' }, `Missing: ${what}`)),
    h('section', {}, h('h2', {}, 'Stages'), stageTable(a.stages),
      h('h3', {}, 'Busy over time'), timeline(a.timeline, a.stages)),
    a.timeline.gpus?.length > 0 && h('section', {}, h('h2', {}, 'GPUs'),
      a.stages.some((s) => s.gpu) && gpuTable(a.stages), gpuTimeline(a.timeline)),
    h('section', {}, h('h2', {}, 'Requests'),
      a.requests_total === 0 ? h('p', { class: 'empty' }, 'No request ended while this session was recorded.') : [
        h('p', { class: 'note' }, kindKey(), a.running > 0 && ` ${count(a.running)} more had not ended.`),
        waterfall(a.requests, a.requests_total),
        a.path && [h('h3', {}, 'What requests waited for'), pathTable(a.path, total)]]),
    h('section', {}, h('h2', {}, 'Operators'), operators(a.stages)),
    h('section', {}, h('h2', {}, 'Flame graph'), flame(profile.id, a.stages)),
  ];
}

export async function session(main, signal, id) {
  const top = h('div');
  const reports = h('div');
  const body = h('div', {}, h('p', { class: 'empty' }, 'Reading …'));
  const bottom = h('section');
  const fault = h('div');
  main.append(top, reports, body, bottom);
  let analysed = 0;

  async function refresh() {
    const profile = await json(`profiles/${encodeURIComponent(id)}`, { signal });
    document.title = `omni: ${profile.name}`;
    show(top, header(profile, fault));
    const going = !['done', 'failed'].includes(profile.state);
    show(reports, going && profile.reports && workerTable(profile.reports));
    show(bottom, h('h2', {}, 'Files'), files(profile, fault));
    const complete = profile.files.filter((f) => f.kind === 'trace' && f.complete).length;
    if (complete === 0) {
      show(body, h('p', { class: 'empty' }, going ? 'Its traces appear here as soon as the first is complete.' : 'No trace of this session was completed.'));
    } else if (complete !== analysed) {
      analysed = complete;
      show(body, h('p', { class: 'empty', role: 'status' }, `Reading ${bytes(profile.bytes)} …`));
      try {
        show(body, analysisSections(profile, await json(`profiles/${encodeURIComponent(id)}/analysis`, { signal })));
      } catch (e) {
        if (e.name === 'AbortError') return;
        show(body, problem(e));
      }
    }
    if (going) {
      const timer = setTimeout(() => refresh().catch(lost), 1000);
      signal.addEventListener('abort', () => clearTimeout(timer));
    }
  }
  function lost(e) {
    if (e.name !== 'AbortError') show(top, h('p', { class: 'crumbs' }, h('a', { href: '#/' }, 'omni'), ' / profiles'), h('h1', {}, id), problem(e));
    show(body);
  }
  await refresh().catch(lost);
}
