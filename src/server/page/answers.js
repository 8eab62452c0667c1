'use strict';
// One answer: streamed into a node, counted, and told in a line.
const answers = (() => {
  // What has come of an answer; stays when it breaks off.
  const begin = () => ({ thought: '', said: '', usage: null, n_tokens: 0, first_n: 0, began: performance.now(), first_at: 0,
    last_at: 0 });

  // Of the text of all tokens the first n characters are reasoning; one token may have some of both.
  function add_tokens(traced, n, body) {
    for (const token of traced) {
      const thought = token.text.slice(0, n), said = token.text.slice(n);
      n -= thought.length;
      if (thought) tokens.append(reasoning.place(body), { ...token, text: thought });
      if (said) tokens.append(body, { ...token, text: said });
    }
  }

  // Adds what a chunk brings; returns {thought, said, n}: reasoning, content, and tokens: 1 where they are not told.
  function add_chunk(chunk, body) {
    const choice = chunk.choices && chunk.choices[0];
    const delta = (choice && choice.delta) || {};
    const thought = delta.reasoning_content || '', said = delta.content || '';
    const traced = chunk.dspark && chunk.dspark.tokens;
    if (traced && traced.map(t => t.text).join('') === thought + said) {
      add_tokens(traced, thought.length, body);
    } else {
      if (thought) reasoning.place(body).append(thought);
      if (said) body.append(said);
    }
    return { thought, said, n: traced ? traced.length : 1 };
  }

  // To be called before `log` gets more: keeps the end in sight, but leaves alone who reads further up. Once a frame:
  // each look at the height makes the browser lay out the text.
  function follow(log) {
    let is_asked = false;
    return () => {
      if (is_asked) return;
      is_asked = true;
      const place = log.scrollTop;
      const is_at_end = log.scrollHeight - place - log.clientHeight < 40;
      requestAnimationFrame(() => {
        is_asked = false;
        if (is_at_end && log.scrollTop >= place) log.scrollTop = log.scrollHeight;
      });
    };
  }

  // Streams the answer to the messages of `list` into `body`, its reasoning into a block above; `seen` fills meanwhile.
  // Throws what client.stream throws.
  async function stream(list, body, seen, signal, overrides) {
    const before_more = follow(document.getElementById('log'));
    const whole = body.parentNode;
    whole.setAttribute('aria-busy', 'true');
    try {
      await client.stream({ ...settings.request(list), ...overrides }, signal, chunk => {
        if (chunk.usage) seen.usage = chunk.usage;
        before_more();
        const piece = add_chunk(chunk, body);
        if (!piece.thought && !piece.said) return;
        seen.last_at = performance.now();
        if (!seen.first_at) [seen.first_at, seen.first_n] = [seen.last_at, piece.n];
        seen.thought += piece.thought;
        seen.said += piece.said;
        seen.n_tokens += piece.n;
      });
    } finally {
      whole.removeAttribute('aria-busy');
    }
  }

  const n_tokens = seen => seen.usage ? seen.usage.completion_tokens : seen.n_tokens;

  // Tokens per second from the first piece to the last, so that reading the prompt does not count; where all came at
  // once, from the question on. 0 without tokens.
  function rate(seen) {
    const n = n_tokens(seen), writing = seen.last_at - seen.first_at;
    if (writing > 0 && n > seen.first_n) return 1000 * (n - seen.first_n) / writing;
    return seen.last_at > seen.began ? 1000 * n / (seen.last_at - seen.began) : 0;
  }
  const rate_text = seen => {
    const r = rate(seen);
    return `${r >= 10 ? r.toFixed(0) : r.toPrecision(2)} tokens/s`;
  };

  // The line below an answer. `how`: a word in front, such as "stopped".
  function line(seen, how) {
    const parts = how ? [how] : [];
    parts.push(`${n_tokens(seen)} tokens`);
    if (rate(seen) > 0) parts.push(rate_text(seen));
    const s = seen.usage && seen.usage.speculation;
    if (s && s.rounds > 0) {
      parts.push(`drafted ${s.drafted}`, `verified ${s.verified}`, `trimmed ${s.trimmed}`, `accepted ${s.accepted}`,
        `${((s.accepted + s.rounds) / s.rounds).toFixed(2)} tokens per round`);
    } else if (seen.usage) {
      parts.push('no drafts');
    }
    return parts.join(' · ');
  }
  return { begin, add_chunk, stream, follow, rate, rate_text, line };
})();
