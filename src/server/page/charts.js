'use strict';
// Small SVG charts: lines over time, curves, bars, and points on the unit square. Each call draws the whole chart.
// What is drawn carries its number as a title: the browser shows it under the pointer, readers of the page find it.
const charts = (() => {
  const H = 112, L = 38, R = 8, T = 6, B = 16;
  const ns = 'http://www.w3.org/2000/svg';
  let W = 320;  // of the chart in hand, in CSS pixels, so that nothing is stretched
  const make = (name, attributes, title) => {
    const node = document.createElementNS(ns, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (title !== undefined) node.append(Object.assign(document.createElementNS(ns, 'title'), { textContent: title }));
    return node;
  };
  const text = (attributes, words) => Object.assign(make('text', attributes), { textContent: words });
  // Enough digits to tell values apart, whatever their size.
  const short = v => (v === 0 ? '0' : v >= 1000 ? v.toFixed(0) : v >= 1 ? String(Number(v.toPrecision(3))) : String(Number(v.toPrecision(2))));
  const digits = v => String(Number(v.toPrecision(4)));

  function frame(svg, top, labels) {
    W = svg.clientWidth || 320;
    svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
    svg.replaceChildren(
      make('path', { class: 'axis', d: `M${L} ${T}V${H - B}H${W - R}` }),
      text({ x: L - 4, y: H - B, 'text-anchor': 'end' }, '0'));
    if (top > 0) svg.append(text({ x: L - 4, y: T + 8, 'text-anchor': 'end' }, short(top)));
    if (labels) {
      svg.append(text({ x: L, y: H - 4 }, labels[0]), text({ x: W - R, y: H - 4, 'text-anchor': 'end' }, labels[1]));
    }
  }

  // A chart without numbers says why.
  function empty(svg, why) {
    frame(svg, 0, null);
    svg.append(text({ class: 'empty', x: (L + W - R) / 2, y: H / 2, 'text-anchor': 'middle' }, why));
  }

  const y = (v, top) => H - B - Math.min(1, Math.max(0, v / top)) * (H - B - T);

  // series: [{name, values: [number|null, ...], cls}], all of one length.
  function lines(svg, series, labels) {
    const all = series.flatMap(s => s.values).filter(v => v !== null && isFinite(v));
    const top = all.length ? Math.max(1e-9, ...all) * 1.1 : 0;
    frame(svg, Math.max(...all, 0) > 0 ? top : 0, labels);
    for (const s of series) {
      const n = Math.max(1, s.values.length - 1);
      let d = '', pen = 'M';
      s.values.forEach((v, i) => {
        if (v === null || !isFinite(v)) { pen = 'M'; return; }
        d += `${pen}${(L + (W - L - R) * i / n).toFixed(1)} ${y(v, top).toFixed(1)}`;
        if (pen === 'M') d += 'h.1';  // a value alone is a dot
        pen = 'L';
      });
      const last = s.values[s.values.length - 1];
      svg.append(make('path', { class: s.cls, d }, `${s.name}: ${last === null || last === undefined ? 'nothing' : digits(last)}`));
    }
  }

  // points: [{x, y, title}] with x ascending; joined by lines.
  function curve(svg, points, labels) {
    const right = Math.max(...points.map(p => p.x)), top = Math.max(...points.map(p => p.y)) * 1.1;
    frame(svg, top, labels);
    const at = p => [(L + (W - L - R) * p.x / right).toFixed(2), y(p.y, top).toFixed(2)];
    svg.append(make('path', { class: 'a', d: 'M' + points.map(p => at(p).join(' ')).join('L') }));
    for (const p of points) svg.append(make('circle', { class: 'dot', r: 2, cx: at(p)[0], cy: at(p)[1] }, p.title));
  }

  // values: [{y, title} or null, ...], y of 0 to 1.
  function bars(svg, values) {
    frame(svg, 1, ['1', String(values.length)]);
    const step = (W - L - R) / values.length;
    values.forEach((v, i) => {
      if (v === null) return;
      svg.append(make('rect', { class: 'bar', x: L + step * (i + .15), y: y(v.y, 1), width: step * .7, height: H - B - y(v.y, 1) },
        v.title));
    });
  }

  // points: [{x, y, n, title}], joined, against the diagonal; the area of a dot tells n.
  function unit(svg, points) {
    frame(svg, 1, ['predicted 0', '1']);
    svg.append(make('path', { class: 'axis', d: `M${L} ${H - B}L${W - R} ${T}` }));
    const x = v => L + (W - L - R) * v, most = Math.max(...points.map(p => p.n));
    svg.append(make('path', { class: 'a', d: 'M' + points.map(p => `${x(p.x).toFixed(1)} ${y(p.y, 1).toFixed(1)}`).join('L') }));
    for (const p of points) {
      svg.append(make('circle', { class: 'dot', r: 1.5 + 4 * Math.sqrt(p.n / most), cx: x(p.x), cy: y(p.y, 1) }, p.title));
    }
  }
  return { lines, curve, bars, unit, empty, digits };
})();
