// Two sessions side by side: what a typical step takes, as a whole and operator by operator.
import { h, show, problem, table, num, numHead } from './dom.js';
import { json } from './net.js';
import { count, ns } from './format.js';

const name = (id) => id.split('.')[0];

function change(c) {
  if (c.before_ns <= 0) return c.after_ns <= 0 ? '–' : 'new';
  if (c.after_ns <= 0) return 'gone';
  const percent = 100 * (c.ratio - 1);
  return `${percent > 0 ? '+' : percent < 0 ? '−' : ''}${Math.abs(percent).toFixed(1)} %`;
}

function row(c, label) {
  const sure = c.p < 0.01;
  const kind = c.regression ? 'bad-text' : sure && c.ratio < 0.95 && c.ratio > 0 ? 'good-text' : '';
  return [h('th', { scope: 'row', class: 'op', title: label }, label), num(ns(c.before_ns)), num(ns(c.after_ns)), h('td', { class: `num ${kind}` }, change(c)),
    h('td', { class: 'num', title: 'probability of such a difference if there were none' }, c.p >= 0.001 ? c.p.toFixed(3) : '< 0.001'), h('td', { class: kind }, c.regression ? 'slower' : kind ? 'faster' : '')];
}

function stage(s) {
  return h('section', {}, h('h2', {}, s.worker, h('span', { class: 'note' }, ` ${count(s.steps_before)} steps before, ${count(s.steps_after)} after`)),
    table(`Changes of ${s.worker}`, ['in a typical step', numHead('before'), numHead('after'), numHead('change'), numHead('p'), ''],
      [row(s.step, 'whole step'), ...s.ops.slice(0, 40).map((op) => row(op, op.name))]));
}

export async function compare(main, signal, before, after) {
  document.title = `omni: ${name(before)} and ${name(after)}`;
  const body = h('div', {}, h('p', { class: 'empty', role: 'status' }, 'Comparing …'));
  const link = (id) => h('a', { href: `#/profiles/${encodeURIComponent(id)}` }, name(id));
  main.append(
    h('p', { class: 'crumbs' }, h('a', { href: '#/' }, 'omni'), ' / compare'),
    h('div', { class: 'head' }, h('h1', {}, link(before), ' → ', link(after)),
      h('a', { class: 'button', href: `#/compare/${encodeURIComponent(after)}/${encodeURIComponent(before)}` }, 'Swap')),
    h('p', { class: 'note' }, 'Slower and faster: by more than 5 %, and more than chance (p below 0.01).'), body);
  try {
    const diff = await json(`profiles/${encodeURIComponent(before)}/diff?after=${encodeURIComponent(after)}`, { signal });
    const slower = diff.stages.reduce((n, s) => n + (s.step.regression ? 1 : 0) + s.ops.filter((o) => o.regression).length, 0);
    show(body, h('p', { class: slower ? 'warning' : 'fine' }, slower ? `${slower} regression${slower === 1 ? '' : 's'}.` : 'No regression.'),
      diff.skipped.length > 0 && h('p', { class: 'note' }, `Only in one of the two: ${diff.skipped.join(', ')}.`), diff.stages.map(stage));
  } catch (e) {
    if (e.name !== 'AbortError') show(body, problem(e));
  }
}
