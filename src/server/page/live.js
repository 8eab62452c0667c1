'use strict';
// The live panel: reads /metrics once a second and draws what changed in between.
const live = (() => {
  const KEEP = 90;
  const $ = id => document.getElementById(id);
  const SPEC = 'spec_decode_num_';
  let history = null, before = null, before_at = 0, timer = null, shown_model = null;

  const pick = (metrics, name, model) => (metrics[name] || []).filter(s => !model || !s.labels.model_name || s.labels.model_name === model);
  const sum = (metrics, name, model) => pick(metrics, name, model).reduce((a, s) => a + s.value, 0);
  const by = (metrics, name, label, model) => {
    const out = new Map();
    for (const s of pick(metrics, name, model)) out.set(Number(s.labels[label]), s.value);
    return [...out.entries()].sort((a, b) => a[0] - b[0]);
  };
  const push = (list, v) => { list.push(v); if (list.length > KEEP) list.shift(); };
  const text = (id, v, digits) => { $(id).textContent = v === null || !isFinite(v) ? '–' : v.toFixed(digits); };

  function forget() {
    history = { rate: [], user: [], budget: [], mean_budget: [] };
    before = null;
  }

  // What the newest numbers and those before them say. Shares of nothing are null.
  function read(now, at, model) {
    const of = name => sum(now, name, model);
    const delta = name => before ? of(name) - sum(before, name, model) : 0;
    const share = (a, b) => b > 0 ? a / b : null;
    const seconds = before ? (at - before_at) / 1000 : 0;
    const running = of('vllm:num_requests_running');
    const rate = share(delta('vllm:generation_tokens_total'), seconds);
    const planned = delta('dspark_planned_steps_total');
    return {
      running, waiting: of('vllm:num_requests_waiting'), rate,
      user: rate === null ? null : share(rate, running),
      has_plans: of('dspark_planned_steps_total') > 0, planned,
      budget: of('dspark_verify_budget'), draft: of('dspark_draft_length'),
      mean_budget: share(delta('dspark_verify_budget_total'), planned),
      paused: share(delta('dspark_paused_steps_total'), planned),
      verified: share(delta(`dspark_${SPEC}verified_tokens_total`), delta(`dspark_${SPEC}rounds_total`)),
    };
  }

  function show_numbers(n) {
    text('n-rate', n.rate, 0);
    text('n-user', n.user, 0);
    text('n-running', n.running, 0);
    text('n-waiting', n.waiting, 0);
    text('n-draft', n.has_plans ? n.draft : null, 0);
    text('n-budget', n.has_plans ? n.budget : null, 0);
    text('n-verified', n.verified, 1);
    $('n-paused').textContent = n.paused === null ? '–' : `${Math.round(100 * n.paused)} %`;
  }

  function draw_history(n) {
    push(history.rate, n.rate);
    push(history.user, n.user);
    push(history.budget, n.planned > 0 ? n.budget : null);
    push(history.mean_budget, n.mean_budget);
    charts.lines($('c-rate'), [{ name: 'all', values: history.rate, cls: 'a' },
      { name: 'per user', values: history.user, cls: 'b' }], ['blue: all', 'orange: per user']);
    if (n.has_plans) {
      charts.lines($('c-budget'), [{ name: 'mean of the last second', values: history.mean_budget, cls: 'b' },
        { name: 'newest planned step', values: history.budget, cls: 'a' }], ['blue: newest step', 'orange: mean of a second']);
    } else {
      charts.empty($('c-budget'), 'no step was planned: only "adaptive" plans');
    }
  }

  function draw_acceptance(now, model) {
    const accepted = by(now, `vllm:${SPEC}accepted_tokens_per_pos_total`, 'position', model);
    const tried = new Map(by(now, `dspark_${SPEC}verified_tokens_per_pos_total`, 'position', model));
    if (!accepted.length) return charts.empty($('c-accept'), 'nothing was drafted yet');
    charts.bars($('c-accept'), accepted.map(([p, n]) => tried.get(p) > 0
      ? { y: n / tried.get(p), title: `place ${p + 1}: ${n} of ${tried.get(p)} accepted` } : null));
  }

  function draw_costs(now, model) {
    const costs = by(now, 'dspark_cost_verify_seconds', 'rows', model);
    if (!costs.length) return charts.empty($('c-cost'), 'no cost model: only "adaptive" has one');
    charts.curve($('c-cost'), costs.map(([rows, s]) => ({ x: rows, y: s * 1000, title: `${rows} row${rows === 1 ? '' : 's'}: ${charts.digits(s * 1000)} ms` })),
      ['0 rows', `${costs[costs.length - 1][0]} rows`]);
  }

  function draw_reliability(now, model) {
    const bin = name => new Map(by(now, 'dspark_calibration_bin_' + name, 'bin', model));
    const predicted = bin('predicted_survival'), observed = bin('observed_survival');
    const points = [...bin('drafts')].filter(([b]) => predicted.has(b) && observed.has(b)).map(([b, n]) => ({
      x: predicted.get(b), y: observed.get(b), n,
      title: `predicted ${charts.digits(predicted.get(b))}, observed ${charts.digits(observed.get(b))}, ${n} drafts` }));
    if (points.length) charts.unit($('c-calib'), points);
    else charts.empty($('c-calib'), 'no draft with a confidence yet');
  }

  function show_step(now, model) {
    const of = name => sum(now, name, model);
    const planned = of('dspark_step_predicted_seconds');
    $('n-step').textContent = planned > 0
      ? `newest step: predicted ${charts.digits(planned * 1000)} ms, measured ${charts.digits(of('dspark_step_measured_seconds') * 1000)} ms; `
        + `passes take ${of('dspark_cost_correction').toFixed(2)} times what the cost curve says` : '';
  }

  function show(now, at, model) {
    if (model !== shown_model) forget();
    shown_model = model;
    const numbers = read(now, at, model);
    show_numbers(numbers);
    draw_history(numbers);
    draw_acceptance(now, model);
    draw_costs(now, model);
    draw_reliability(now, model);
    show_step(now, model);
    before = now;
    before_at = at;
  }

  // Old numbers would pass for new ones.
  function show_failure(why) {
    if (why) {
      forget();
      for (const node of document.querySelectorAll('.numbers b')) node.textContent = '–';
      for (const svg of document.querySelectorAll('#live .chart')) charts.empty(svg, 'no numbers');
      $('n-step').textContent = '';
    }
    if ($('live-error').textContent !== why) $('live-error').textContent = why;
    $('live-error').hidden = !why;
  }

  async function tick() {
    try {
      const now = await client.metrics();
      connection.reached();
      show_failure('');
      show(now, performance.now(), $('model').value);
    } catch (error) {
      if (error.kind === 'unreachable') {
        connection.failed(error);
        show_failure('No live numbers: the server does not answer.');
      } else {
        connection.reached();
        show_failure(`No live numbers, /metrics fails: ${error.message} Answers are not touched by this.`);
      }
    }
    timer = setTimeout(tick, document.hidden ? 5000 : 1000);
  }

  // --- simulated users ---
  let load_request = null;
  const ask_load = (users, options) => client.sendJson('PUT', 'dspark/load', { model: $('model').value, users }, options);

  function set_load() {
    $('load-value').textContent = $('load').value;
    clearTimeout(load_request);
    load_request = setTimeout(async () => {
      try {
        const answer = await ask_load(Number($('load').value));
        $('load-note').textContent = answer.users > 0 ? `${answer.users} simulated users are writing` : '';
      } catch (error) {
        $('load-note').textContent = error.message;
        $('load').value = 0;
        $('load-value').textContent = '0';
      }
    }, 200);
  }

  // Nobody watches any more: the users leave with the page.
  function leave() {
    if (Number($('load').value) > 0) ask_load(0, { keepalive: true }).catch(() => {});
  }

  function start() {
    forget();
    $('load').addEventListener('input', set_load);
    addEventListener('pagehide', leave);
    clearTimeout(timer);
    tick();
  }
  return { start };
})();
