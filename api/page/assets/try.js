// A prompt to try the model with: text as it comes, speech as it is made.
import { h, show, problem } from './dom.js';
import { request } from './net.js';
import { ms, rate } from './format.js';
import { Player } from './audio.js';

/** events reads a stream of server-sent events and yields their data. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
  }
}

function facts(list) {
  return h('dl', { class: 'facts' }, list.filter(([, v]) => v).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

export function tryIt(signal) {
  const prompt = h('textarea', { name: 'prompt', rows: '3', required: true, placeholder: 'Ask something', 'aria-label': 'prompt' });
  const voice = h('select', { name: 'voice' });
  const voices = h('label', { hidden: true }, h('span', {}, 'Voice'), voice);
  const speech = h('input', { type: 'checkbox', name: 'speech', checked: true });
  const speechLabel = h('label', { title: 'the answer as speech as well' }, speech, 'speech');
  const number = (name, label, props) => h('label', {}, h('span', {}, label), h('input', { type: 'number', name, ...props }));
  const send = h('button', { class: 'primary' }, 'Send');
  const stop = h('button', { type: 'button', hidden: true, onclick: () => running?.abort() }, 'Stop');
  const text = h('div', { class: 'answer', 'aria-live': 'polite', hidden: true });
  const result = h('div');
  const sound = h('div');
  let running = null, model = '', sampleRate = 24000, asked = false;

  const form = h('form', { class: 'control' }, prompt,
    h('details', {}, h('summary', {}, 'Options'), h('div', { class: 'fields' },
      number('max_tokens', 'Most tokens', { min: '1', step: '1' }), number('temperature', 'Temperature', { min: '0', max: '2', step: 'any' }),
      number('seed', 'Seed', { min: '0', step: '1' }), voices)),
    h('div', { class: 'actions' }, send, stop, speechLabel, h('span', { class: 'note keys' }, 'Ctrl + Enter sends')));

  document.addEventListener('omni:stages', async ({ detail }) => {
    model = detail.model;
    sampleRate = detail.stages.find((s) => s.info.sample_rate > 0)?.info.sample_rate ?? sampleRate;
    if (asked) return;
    asked = true;
    const speaks = detail.stages.some((s) => s.info.sample_rate > 0);
    speechLabel.hidden = !speaks;
    speech.checked = speaks;
    const names = [...new Set(detail.stages.flatMap((s) => s.info.speakers ?? []))];
    show(voice, h('option', { value: '' }, 'default'), names.map((n) => h('option', { value: n }, n)));
    voices.hidden = names.length === 0;
  }, { signal });

  async function run() {
    const data = new FormData(form);
    const withSpeech = speech.checked && !speechLabel.hidden;
    const body = { model, messages: [{ role: 'user', content: data.get('prompt') }], modalities: withSpeech ? ['text', 'audio'] : ['text'], stream: true, stream_options: { include_usage: true } };
    for (const name of ['max_tokens', 'temperature', 'seed']) if (data.get(name)) body[name] = Number(data.get(name));
    if (withSpeech) body.audio = { format: 'pcm16', voice: data.get('voice') || voice.options[1]?.value || 'default' };
    running = new AbortController();
    signal.addEventListener('abort', () => running?.abort());
    const player = withSpeech ? new Player(sampleRate) : null; // made on the click, or the browser keeps it silent
    const began = performance.now();
    let firstText = 0, firstAudio = 0, usage = null, answer = '', spoken = '', finished = '';
    send.hidden = true;
    stop.hidden = false;
    text.hidden = false;
    text.textContent = '';
    text.classList.add('going');
    show(result);
    show(sound);
    const update = (last) => show(result, facts([
      ['first text', firstText && ms(firstText)], ['first audio', firstAudio && ms(firstAudio)], ['all', last && ms(performance.now() - began)],
      ['tokens', usage && String(usage.completion_tokens)], ['tokens / s', last && usage && rate(usage.completion_tokens / ((performance.now() - began) / 1000))],
      ['speech', player?.seconds > 0 && `${player.seconds.toFixed(1)} s`], ['ended', finished]]));
    try {
      const response = await request('v1/chat/completions', { method: 'POST', body, signal: running.signal });
      for await (const item of events(response)) {
        if (item === '[DONE]') break;
        const chunk = JSON.parse(item);
        if (chunk.error) throw new Error(chunk.error.message);
        usage = chunk.usage ?? usage;
        for (const choice of chunk.choices ?? []) {
          const piece = choice.delta?.content ?? '';
          if (piece !== '') {
            firstText ||= performance.now() - began;
            answer += piece;
            text.textContent = answer;
          }
          spoken += choice.delta?.audio?.transcript ?? '';
          if (answer === '' && spoken !== '') text.textContent = spoken; // what was said, where it does not come as text
          if (choice.delta?.audio?.data) {
            firstAudio ||= performance.now() - began;
            if (player) player.sampleRate = choice.audio_metadata?.sample_rate_hz ?? player.sampleRate;
            player?.add(choice.delta.audio.data);
          }
          finished = choice.finish_reason ?? finished;
        }
        update(false);
      }
    } catch (e) {
      if (e.name === 'AbortError') finished = 'stopped';
      else show(sound, problem(e));
    } finally {
      running = null;
      send.hidden = false;
      stop.hidden = true;
      text.classList.remove('going');
      text.hidden = answer === '' && spoken === '';
      update(true);
      if (player?.seconds > 0) {
        sound.append(h('audio', { controls: true, src: URL.createObjectURL(player.wav()), 'aria-label': 'the speech' }));
        setTimeout(() => player.close(), Math.max(0, (player.at - player.context.currentTime) * 1000 + 200));
      } else player?.close();
    }
  }

  form.addEventListener('submit', (e) => {
    e.preventDefault();
    if (!running) run();
  });
  prompt.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) form.requestSubmit();
  });
  return h('div', { class: 'stack' }, form, text, sound, result);
}
