'use strict';
// Conversation, token shading, race, settings.
(() => {
  const $ = id => document.getElementById(id);
  const messages = [];
  let running = null;  // AbortController of the answer in hand

  // --- settings, kept in this browser only ---
  const kept = ['temperature', 'seed', 'max-tokens', 'policy', 'system'];
  const store = {
    get(key) { try { return localStorage.getItem('dspark.' + key); } catch (_) { return null; } },
    set(key, value) { try { localStorage.setItem('dspark.' + key, value); } catch (_) { /* private window */ } },
  };
  for (const id of kept) {
    const value = store.get(id);
    if (value !== null) $(id).value = value;
    $(id).addEventListener('change', () => store.set(id, $(id).value));
  }
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = store.get('theme') || (dark ? 'dark' : 'light');
  $('toggle-theme').addEventListener('click', () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = next;
    store.set('theme', next);
  });
  for (const [button, panel] of [['toggle-settings', 'settings'], ['toggle-live', 'live']]) {
    $(button).addEventListener('click', () => {
      $(panel).hidden = !$(panel).hidden;
      $(button).setAttribute('aria-expanded', String(!$(panel).hidden));
    });
  }
  $('settings').addEventListener('submit', event => event.preventDefault());

  function request(list) {
    const system = $('system').value.trim();
    const body = {
      model: $('model').value, temperature: Number($('temperature').value), seed: Number($('seed').value),
      max_tokens: Number($('max-tokens').value),
      messages: system ? [{ role: 'system', content: system }, ...list] : list,
    };
    if ($('policy').value) body.speculation = { policy: $('policy').value };
    return body;
  }

  // --- tokens ---
  function token_span(token) {
    const span = document.createElement('span');
    const place = token.draft_idx >= 0 ? token.draft_idx + 1 : 0;
    span.className = 't ' + token.origin;
    if (token.origin === 'accepted') span.classList.add('d' + Math.min(place, 4));
    if (token.source === 'lookup') span.classList.add('lookup');
    span.textContent = token.text;
    const facts = [{ accepted: 'accepted draft', correction: 'correction: the draft was another', bonus: 'bonus after a full run',
      plain: 'plain' }[token.origin] || token.origin];
    if (place) facts.push(`place ${place} of its block`);
    if (token.source === 'lookup') facts.push('proposed by look-up');
    if (typeof token.draft_probability === 'number') facts.push(`draft probability ${token.draft_probability.toFixed(2)}`);
    if (typeof token.confidence === 'number') facts.push(`confidence ${token.confidence.toFixed(2)}`);
    if (typeof token.target_probability === 'number') facts.push(`the model's probability ${token.target_probability.toFixed(2)}`);
    span.dataset.tip = facts.join('\n');
    return span;
  }

  // Adds what a chunk brings; returns its text. With a trace the tokens are shown one by one.
  function add_chunk(chunk, body) {
    const choice = chunk.choices && chunk.choices[0];
    const delta = (choice && choice.delta) || {};
    const content = (delta.reasoning_content || '') + (delta.content || '');
    const tokens = chunk.dspark && chunk.dspark.tokens;
    const joined = tokens ? tokens.map(t => t.text).join('') : '';
    if (tokens && joined === content) {
      for (const token of tokens) if (token.text) body.append(token_span(token));
    } else if (content) {
      body.append(content);
    }
    return content;
  }

  function report(usage, seconds) {
    const n = usage ? usage.completion_tokens : 0;
    const parts = [`${n} tokens`];
    if (seconds > 0) parts.push(`${(n / seconds).toFixed(0)} tokens/s`);
    const s = usage && usage.speculation;
    if (s && s.rounds > 0) {
      parts.push(`drafted ${s.drafted}`, `verified ${s.verified}`, `trimmed ${s.trimmed}`, `accepted ${s.accepted}`,
        `${((s.accepted + s.rounds) / s.rounds).toFixed(2)} tokens per round`);
    } else {
      parts.push('no drafts');
    }
    return parts.join(' · ');
  }

  // Streams one answer into `body`. returns: {text, usage, seconds}
  async function answer(list, body, signal, overrides, on_progress) {
    let text = '', usage = null, first = 0, count = 0;
    const log = $('log');
    await client.stream({ ...request(list), ...overrides }, signal, chunk => {
      if (chunk.usage) usage = chunk.usage;
      const piece = add_chunk(chunk, body);
      if (!piece) return;
      if (!first) first = performance.now();
      text += piece;
      count += 1;
      if (on_progress) on_progress(text);
      log.scrollTop = log.scrollHeight;
    });
    return { text, usage, seconds: first ? (performance.now() - first) / 1000 : 0 };
  }

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
    $('prompt').value = '';
    $('race').hidden = true;
    messages.push({ role: 'user', content: prompt });
    add_message('user', prompt);
    const shown = add_message('assistant', '');
    const controller = new AbortController();
    busy(controller);
    let text = '';
    try {
      const result = await answer(messages, shown.body, controller.signal, {}, t => { text = t; });
      shown.facts.textContent = report(result.usage, result.seconds);
    } catch (error) {
      shown.facts.textContent = controller.signal.aborted ? 'stopped' : error.message;
      if (!controller.signal.aborted) shown.facts.classList.add('error');
    }
    if (text) messages.push({ role: 'assistant', content: text }); else messages.pop();
    busy(null);
    $('prompt').focus();
  }

  // The same prompt and seed twice, one after the other so that neither slows the other down.
  async function race() {
    const prompt = $('prompt').value.trim() || (messages.find(m => m.role === 'user') || {}).content;
    if (!prompt || running) { $('prompt').focus(); return; }
    // A setting that turns speculation off is for answers; one side of a race always has it.
    const with_it = $('policy').value === 'off' ? { speculation: undefined } : {};
    const lanes = [['race-with', with_it], ['race-without', { speculation: { policy: 'off' } }]];
    const verdict = $('race-verdict');
    $('race').hidden = false;
    verdict.textContent = 'running';
    verdict.className = '';
    for (const [id] of lanes) { $(id).replaceChildren(); $(id + '-speed').textContent = ''; }
    const controller = new AbortController();
    busy(controller);
    const results = [];
    try {
      for (const [id, overrides] of lanes) {
        const result = await answer([{ role: 'user', content: prompt }], $(id), controller.signal, overrides);
        const n = result.usage ? result.usage.completion_tokens : 0;
        $(id + '-speed').textContent = result.seconds > 0 ? `${(n / result.seconds).toFixed(0)} tokens/s` : '';
        results.push(result);
      }
      const same = results[0].text === results[1].text;
      const ratio = results[1].seconds / results[0].seconds;
      const drafted = results[0].usage && results[0].usage.speculation && results[0].usage.speculation.drafted > 0;
      verdict.textContent = !same ? 'texts differ' : drafted ? `texts identical · ${ratio.toFixed(2)} times as fast`
        : 'texts identical · nothing was drafted';
      verdict.classList.add(same ? 'same' : 'different');
    } catch (error) {
      verdict.textContent = controller.signal.aborted ? 'stopped' : error.message;
      if (!controller.signal.aborted) verdict.classList.add('different');
    }
    busy(null);
  }

  // --- the tooltip: pointer and touch ---
  const tip = $('tip');
  function show_tip(event) {
    const span = event.target.closest && event.target.closest('[data-tip]');
    tip.hidden = !span;
    if (!span) return;
    tip.textContent = span.dataset.tip;
    const box = span.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(box.left, innerWidth - own.width - 4)) + 'px';
    tip.style.top = (box.bottom + own.height + 8 < innerHeight ? box.bottom + 4 : box.top - own.height - 4) + 'px';
  }
  document.addEventListener('pointerover', show_tip);
  document.addEventListener('pointerdown', show_tip);

  // --- banner: a drafter that is missing or does not fit must not go unseen ---
  async function look_at_model() {
    try {
      const props = await client.getJson('props?model=' + encodeURIComponent($('model').value));
      const drafter = props.drafter;
      const text = drafter ? `${drafter.kind || 'drafter'}, ${props.policy || 'adaptive'}` : 'no drafter';
      $('state').dataset.text = $('state').textContent = text;
      $('banner').hidden = Boolean(drafter);
      $('banner').textContent = drafter ? '' : props.drafter_error
        ? `No drafter, answers come at plain speed: ${props.drafter_error}`
        : 'This server runs without a drafter: answers come at plain speed. Start it with -d DRAFTER.';
    } catch (error) {
      $('banner').hidden = false;
      $('banner').textContent = error.message;
    }
  }

  $('ask').addEventListener('submit', event => { event.preventDefault(); send(); });
  $('prompt').addEventListener('keydown', event => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  document.addEventListener('keydown', event => { if (event.key === 'Escape') stop(); });
  $('stop').addEventListener('click', stop);
  $('start-race').addEventListener('click', race);
  $('clear').addEventListener('click', () => { stop(); messages.length = 0; $('log').replaceChildren(); $('race').hidden = true; });
  $('model').addEventListener('change', look_at_model);

  (async () => {
    try {
      const list = await client.getJson('v1/models');
      for (const m of list.data) $('model').append(new Option(m.id, m.id));
    } catch (error) {
      $('banner').hidden = false;
      $('banner').textContent = error.message;
    }
    await look_at_model();
    live.start();
    $('prompt').focus();
  })();
})();
