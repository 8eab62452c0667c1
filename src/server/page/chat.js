'use strict';
// The conversation and the buttons.
(() => {
  const $ = id => document.getElementById(id);
  let messages = [];
  let running = null;  // AbortController of the answer in hand

  function add_message(role, text) {
    const node = document.createElement('article');
    node.className = 'message ' + role;
    const who = document.createElement('div');
    who.className = 'who';
    who.textContent = role === 'user' ? 'you' : $('model').value;
    const body = document.createElement('div');
    body.className = 'body';
    body.textContent = text;
    const facts = document.createElement('div');
    facts.className = 'facts';
    node.append(who, body, facts);
    $('log').append(node);
    $('log').scrollTop = $('log').scrollHeight;
    return { body, facts };
  }

  function busy(controller) {
    running = controller;
    $('send').disabled = $('start-race').disabled = controller !== null;
    $('stop').disabled = controller === null;
  }
  const stop = () => { if (running) running.abort(); };

  async function send() {
    const prompt = $('prompt').value.trim();
    if (!prompt || running) return;
    const list = messages;  // Clear starts another
    $('prompt').value = '';
    $('race').hidden = true;
    list.push({ role: 'user', content: prompt });
    add_message('user', prompt);
    const shown = add_message('assistant', '');
    const before_more = answers.follow($('log'));
    const controller = new AbortController();
    const seen = answers.begin();
    busy(controller);
    try {
      await answers.stream(list, shown.body, seen, controller.signal, {});
      before_more();
      shown.facts.textContent = answers.line(seen);
    } catch (error) {
      before_more();
      if (!controller.signal.aborted) {
        shown.facts.classList.add('error');
        if (error.kind === 'key' || error.kind === 'unreachable') connection.failed(error);
      }
      shown.facts.textContent = controller.signal.aborted ? answers.line(seen, 'stopped') : error.message;
    }
    // Reasoning stays here: models are not shown that of earlier turns. An answer that is only reasoning is an empty one.
    if (seen.said || seen.thought) list.push({ role: 'assistant', content: seen.said }); else list.pop();
    busy(null);
    if (!$('settings').contains(document.activeElement)) $('prompt').focus();
  }

  // The same prompt and seed twice, one after the other so that neither slows the other down.
  async function run_race() {
    const prompt = $('prompt').value.trim() || (messages.find(m => m.role === 'user') || {}).content;
    if (!prompt || running) { $('prompt').focus(); return; }
    // A setting that turns speculation off is for answers; one side of a race always has it.
    const overrides = [$('policy').value === 'off' ? { speculation: undefined } : {}, { speculation: { policy: 'off' } }];
    const results = [];
    const controller = new AbortController();
    race.open();
    busy(controller);
    try {
      for (const [i, id] of race.LANES.entries()) {
        results[i] = answers.begin();
        await answers.stream([{ role: 'user', content: prompt }], $(id), results[i], controller.signal, overrides[i]);
        $(id + '-speed').textContent = answers.rate_text(results[i]);
      }
      race.judge(...results);
    } catch (error) {
      if (controller.signal.aborted) race.say('stopped');
      else race.say(error.message, 'failed');
    }
    busy(null);
  }

  function clear() {
    stop();
    messages = [];
    $('log').replaceChildren();
    $('race').hidden = true;
  }

  $('ask').addEventListener('submit', event => { event.preventDefault(); send(); });
  $('prompt').addEventListener('keydown', event => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  document.addEventListener('keydown', event => { if (event.key === 'Escape') stop(); });
  $('stop').addEventListener('click', stop);
  $('start-race').addEventListener('click', run_race);
  $('clear').addEventListener('click', clear);

  $('prompt').focus();  // before the look: a missing API key takes the focus for itself
  connection.look().then(live.start);
})();
