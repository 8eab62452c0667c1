'use strict';
// The live panel: reads /metrics once a second and draws what changed in between.
const live = (() => {
  const KEEP = 90;
  const $ = id => document.getElementById(id);
  const history = { rate: [], user: [], budget: [] };
  let before = null, before_at = 0, timer = null;

  const pick = (metrics, name, model) => (metrics[name] || []).filter(s => !model || !s.labels.model_name || s.labels.model_name === model);
  const sum = (metrics, name, model) => pick(metrics, name, model).reduce((a, s) => a + s.value, 0);
  const by = (metrics, name, label, model) => {
    const out = new Map();
    for (const s of pick(metrics, name, model)) out.set(Number(s.labels[label]), s.value);
    return [...out.entries()].sort((a, b) => a[0] - b[0]);
  };
  const push = (list, v) => { list.push(v); if (list.length > KEEP) list.shift(); };
  const text = (id, v, digits) => { $(id).textContent = v === null || !isFinite(v) ? '–' : v.toFixed(digits); };

  function show(now, at, model) {
    const delta = name => before ? sum(now, name, model) - sum(before, name, model) : 0;
    const seconds = before ? (at - before_at) / 1000 : 0;
    const rate = seconds > 0 ? delta('vllm:generation_tokens_total') / seconds : null;
    const running = sum(now, 'vllm:num_requests_running', model);
    const rounds = delta('vllm:spec_decode_num_drafts_total');
    const verified = delta('dspark_spec_decode_num_verified_tokens_total');
    const user = rate !== null && running > 0 ? rate / running : null;
    text('n-rate', rate, 0);
    text('n-user', user, 0);
    text('n-running', running, 0);
    text('n-waiting', sum(now, 'vllm:num_requests_waiting', model), 0);
    push(history.rate, rate);
    push(history.user, user);
    push(history.budget, rounds > 0 ? verified / rounds : rate ? 0 : null);
    charts.lines($('c-rate'), [{ values: history.rate, cls: 'a' }, { values: history.user, cls: 'b' }], ['blue: all', 'orange: per user']);
    charts.lines($('c-budget'), [{ values: history.budget, cls: 'a' }], [`${history.budget.length} s ago`, 'now']);
    const accepted = by(now, 'vllm:spec_decode_num_accepted_tokens_per_pos_total', 'position', model);
    const tried = new Map(by(now, 'dspark_spec_decode_num_verified_tokens_per_pos_total', 'position', model));
    charts.bars($('c-accept'), accepted.map(([p, n]) => tried.get(p) > 0 ? n / tried.get(p) : null));
    charts.curve($('c-cost'), by(now, 'dspark_cost_verify_seconds', 'rows', model).map(([r, s]) => [r, s * 1000]), ['rows', '']);
    const bin = name => new Map(by(now, 'dspark_calibration_bin_' + name, 'bin', model));
    const predicted = bin('predicted_survival'), observed = bin('observed_survival');
    charts.unit($('c-calib'), [...bin('drafts')].filter(([b]) => predicted.has(b) && observed.has(b))
      .map(([b, n]) => [predicted.get(b), observed.get(b), n]));
    const measured = sum(now, 'dspark_step_measured_seconds', model), planned = sum(now, 'dspark_step_predicted_seconds', model);
    $('n-step').textContent = planned > 0
      ? `step: predicted ${(planned * 1000).toFixed(1)} ms, measured ${(measured * 1000).toFixed(1)} ms` : '';
  }

  async function tick() {
    try {
      const now = await client.metrics();
      const at = performance.now();
      show(now, at, $('model').value);
      before = now;
      before_at = at;
      $('state').textContent = $('state').dataset.text || 'ready';
    } catch (error) {
      $('state').textContent = 'not reachable: ' + error.message;
    }
    timer = setTimeout(tick, document.hidden ? 5000 : 1000);
  }

  let load_request = null;
  function set_load() {
    $('load-value').textContent = $('load').value;
    clearTimeout(load_request);
    load_request = setTimeout(async () => {
      try {
        const answer = await client.sendJson('PUT', 'dspark/load', { model: $('model').value, users: Number($('load').value) });
        $('load-note').textContent = answer.users > 0 ? `${answer.users} simulated users are writing` : '';
      } catch (error) {
        $('load-note').textContent = error.message;
        $('load').value = 0;
        $('load-value').textContent = '0';
      }
    }, 200);
  }

  function start() {
    $('load').addEventListener('input', set_load);
    clearTimeout(timer);
    tick();
  }
  return { start };
})();
