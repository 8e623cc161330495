// The first view: stages, profile control, a prompt to try, and the sessions there are.
import { h } from './dom.js';
import { stages } from './stages.js';
import { control } from './control.js';
import { sessions } from './sessions.js';
import { tryIt } from './try.js';

export function home(main, signal) {
  const list = h('section', { 'aria-labelledby': 'profiles-title' });
  main.append(
    h('section', { 'aria-labelledby': 'stages-title' }, h('h2', { id: 'stages-title' }, 'Stages'), stages(signal)),
    h('div', { class: 'columns' },
      h('section', { class: 'panel', 'aria-labelledby': 'control-title' }, h('h2', { id: 'control-title' }, 'Profile'),
        control(signal, () => list.dispatchEvent(new Event('refresh')))),
      h('section', { class: 'panel', 'aria-labelledby': 'try-title' }, h('h2', { id: 'try-title' }, 'Try it'), tryIt(signal))),
    list);
  sessions(list, signal);
}
